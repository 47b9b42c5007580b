//! Builds the HTTP request of a workflow's step. Pure: a request is rendered when it is sent, from
//! the visit's input and the instant it was entered. So every attempt sends the same bytes under
//! the same key, and nothing that holds a secret is stored.

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use url::Url;

use super::client::STEP_RESPONSE_BYTES_MAX;
use super::compose::{Headers, Signing};
use crate::decide::address::Policy;
use crate::decide::workflow::Step;
use crate::decide::workflow::data::ExpressionScope;
use crate::decide::workflow::flow::{Address, Call, CallKey};
use crate::model::request::Progress;
use crate::model::run::{Visit, VisitPhase};
use crate::model::{Event, Failure, Job, Method, Request, Run, Target, trace};

/// The destination name of steps whose hosts stand in the configuration. The server's address rules
/// apply.
pub const DESTINATION: &str = "steps of workflows";
/// The destination name of steps whose hosts come from payloads. The same rules apply, in the
/// stricter form for URLs that someone else wrote.
pub const FOREIGN: &str = "steps of workflows to hosts of payloads";

/// The characters to encode in a URL: all but the unreserved ones (RFC 3986, 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Everything that the request of a step is built from.
pub struct StepRequest<'a> {
    /// The job being executed. Its id and attempt number go into the headers.
    pub job: &'a Job,
    /// The event behind the run.
    pub event: &'a Event,
    /// The run that the step belongs to, as it was read for this attempt.
    pub run: &'a Run,
    /// The number of the visit in its run, from 1. It is part of the idempotency key, unless the
    /// visit repeats or undoes an earlier operation.
    pub seq: u32,
    /// The visit: its payload, its callback token, and the instant when it was entered.
    pub visit: &'a Visit,
    /// The step's definition, from the version of the workflow that the run is pinned to.
    pub step: &'a Step,
    /// The call of the step, with secrets from the present configuration.
    pub call: &'a Call,
    /// The server's public URL; `None` if the configuration has none. Callback links start with it.
    pub public_url: Option<&'a Url>,
    /// The address rules of the server. A URL that a template yields is checked against them before
    /// it is sent.
    pub policy: &'a Policy,
}

/// Builds the request of a step.
///
/// # Errors
/// It cannot be built, or the address rules refuse its URL.
pub fn compose_step(calling: &StepRequest<'_>, around: Signing<'_>) -> Result<Request, Failure> {
    let StepRequest { job, event, run, seq, visit, call, step, .. } = calling;
    let VisitPhase::Call { token, polls } = &visit.phase else {
        return Err(Failure::Compose("the step does not wait for a call".to_owned()));
    };
    let token = token.as_deref();
    let view = match token {
        Some(token) => ExpressionScope::of(run, *seq, &step.name, &visit.payload)
            .with("callback", callback(calling, token)),
        None => ExpressionScope::of(run, *seq, &step.name, &visit.payload),
    };
    let unbuilt = Failure::Compose;
    let (url, destination) = url(calling, &view)?;
    let (body, is_text) = match call.method {
        Method::Get => (Bytes::new(), false),
        _ => body(calling, &view, token)?,
    };
    let key = operation(run, *seq, visit, *polls);
    let mut headers = Headers::default();
    headers.set(
        "Content-Type",
        if is_text { "text/plain; charset=utf-8" } else { "application/json" },
    );
    let handler = match &job.target {
        Target::Step(visiting) => visiting.step.clone(),
        other => other.name().to_owned(),
    };
    headers.identify(job, event, &handler, &key, around);
    headers.set("X-Tidehook-Run-ID", &run.id.to_string());
    match &call.key {
        CallKey::Visit => headers.set("Idempotency-Key", &key),
        CallKey::Attempt => headers.set("Idempotency-Key", &format!("{key}-a{}", job.attempt + 1)),
        CallKey::None => {}
        CallKey::Template(template) => {
            headers
                .set("Idempotency-Key", &view.render_plain(template, in_header).map_err(unbuilt)?);
        }
    }
    if let Some((_, id)) = event.headers.iter().find(|(name, _)| name == trace::REQUEST_ID) {
        headers.set("X-Request-Id", id);
    }
    if let Some(token) = token {
        headers.set_own("Callback-Token", token, around);
    }
    headers.sign(&key, &body, around);
    for (name, template) in &call.headers {
        let value = view
            .render_plain(template, in_header)
            .map_err(|why| unbuilt(format!("header `{name}`: {why}")))?;
        headers.set(name, &value);
    }
    Ok(Request {
        url,
        method: call.method,
        headers: headers.into_list(),
        body,
        timeout: call.timeout,
        at_most_once: call.at_most_once,
        response_bytes_max: STEP_RESPONSE_BYTES_MAX,
        destination: destination.to_owned(),
        progress: Progress::default(),
    })
}

/// The key of the operation. It is the same for all attempts of a visit. Another visit, the call
/// that undoes it, and each poll of a polling step have other keys.
pub fn operation(run: &Run, seq: u32, visit: &Visit, polls: u32) -> String {
    if let Some(undone) = visit.undoes {
        return format!("{}-{undone}-c", run.id);
    }
    let seq = visit.operation.unwrap_or(seq);
    let place = visit.within.map_or(String::new(), |(_, place)| format!("-{place}"));
    let poll = if polls == 0 { String::new() } else { format!("-p{polls}") };
    format!("{}-{seq}{place}{poll}", run.id)
}

fn url(
    calling: &StepRequest<'_>,
    view: &ExpressionScope<'_>,
) -> Result<(Url, &'static str), Failure> {
    let StepRequest { call, policy, .. } = calling;
    let (mut url, destination) = match &call.url {
        Address::Fixed(url) => (url.clone(), DESTINATION),
        Address::Template { text, is_foreign } => {
            let text = view
                .render_plain(text, in_url)
                .map_err(|why| Failure::Compose(format!("url: {why}")))?;
            let url = Url::parse(&text)
                .map_err(|why| Failure::Compose(format!("the URL `{text}` is invalid: {why}")))?;
            policy.judge_url(&url).map_err(|why| Failure::Blocked(format!("{url}: {why}")))?;
            (url, if *is_foreign { FOREIGN } else { DESTINATION })
        }
    };
    for (name, template) in &call.query {
        let value = view.render_plain(template, |text, _| Ok(text.to_owned()));
        let value = value.map_err(|why| Failure::Compose(format!("query `{name}`: {why}")))?;
        url.query_pairs_mut().append_pair(name, &value);
    }
    Ok((url, destination))
}

/// A template's value inside a URL. At the very start it may be a whole URL. Anywhere else it is
/// encoded as one piece, so it cannot end its part of the URL or climb to another folder.
fn in_url(text: &str, begins: bool) -> Result<String, String> {
    if begins {
        return match text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            true => Err(
                "the value contains spaces or control characters, which are not allowed in a URL"
                    .to_owned(),
            ),
            false => Ok(text.to_owned()),
        };
    }
    match text {
        "" => Err("a placeholder in the URL is empty".to_owned()),
        "." | ".." => Err(format!("the value `{text}` is not allowed in a URL")),
        text => Ok(utf8_percent_encode(text, ENCODED).to_string()),
    }
}

fn in_header(text: &str, _: bool) -> Result<String, String> {
    match text.contains(char::is_control) {
        true => Err("the value contains line breaks or control characters".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// The body, and whether it is plain text rather than JSON.
fn body(
    calling: &StepRequest<'_>,
    view: &ExpressionScope<'_>,
    token: Option<&str>,
) -> Result<(Bytes, bool), Failure> {
    let StepRequest { run, visit, call, step, .. } = calling;
    if let Some(template) = &call.body {
        let sent = view.render(template).map_err(|why| Failure::Template(why.message))?;
        return Ok((Bytes::from(sent.to_body()), sent.json().is_none() && !template.is_json()));
    }
    let Some(token) = token else {
        return Ok((Bytes::from(visit.payload.to_body()), visit.payload.json().is_none()));
    };
    let mut notice = json!({
        "callback_token": token,
        "workflow": run.workflow,
        "step": step.name,
        "run_id": run.id.to_string(),
        "payload": visit.payload.clone().into_value(),
    });
    if let (Value::Object(fields), Value::Object(links)) = (&mut notice, callback(calling, token)) {
        fields.extend(
            links
                .into_iter()
                .filter(|(name, _)| name != "token")
                .map(|(name, link)| (format!("callback_{name}"), link)),
        );
        if let Some(link) = fields.remove("callback_approve_url") {
            fields.insert("approve_url".to_owned(), link);
        }
    }
    Ok((Bytes::from(notice.to_string()), false))
}

/// The value that templates see as `$$.callback`: the token, and its links if the server knows its
/// public URL. Only an approval has `approve_url`.
fn callback(calling: &StepRequest<'_>, token: &str) -> Value {
    let mut callback = json!({ "token": token });
    if let Some(base) = calling.public_url {
        let base = base.as_str().trim_end_matches('/');
        callback["url"] = json!(format!("{base}/callback/{token}"));
        if calling.step.kind.awaited().is_some_and(|awaited| awaited.approval.is_some()) {
            callback["approve_url"] = json!(format!("{base}/approve/{token}"));
        }
    }
    callback
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_a_url_is_one_piece_of_it() {
        assert_eq!(in_url("a/b?c#d e", false).unwrap(), "a%2Fb%3Fc%23d%20e");
        assert_eq!(in_url("x-1_2.3~", false).unwrap(), "x-1_2.3~");
        assert_eq!(in_url("https://a.example/x", true).unwrap(), "https://a.example/x");
        for bad in ["", ".", ".."] {
            assert!(in_url(bad, false).is_err(), "{bad}");
        }
        assert!(in_url("https://a.example/\r\nx", true).is_err());
    }

    #[test]
    fn a_value_in_a_header_ends_no_line() {
        assert!(in_header("a\r\nx: y", false).is_err());
        assert_eq!(in_header("Bearer x", false).unwrap(), "Bearer x");
    }
}
