//! `/approve/{token}`: a page on which a person approves or rejects a step.
//!
//! A `GET` only shows the question, because scanners of mail and chat fetch every link. Whoever has
//! the token may decide.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::json;

use super::callback::{answer, known, read};
use super::error::ApiError;
use super::path::Path;
use super::router::State;
use crate::engine::approval::PendingApproval;
use crate::engine::callback::Answer;
use crate::model::Body;
use crate::model::body::Declared;

/// The most characters of a payload that the page shows.
const SHOWN_CHARS_MAX: usize = 20_000;

/// `GET /approve/{token}`: the question as a page, or as JSON for callers whose `Accept` names
/// JSON.
pub async fn show(
    Extract(state): Extract<Arc<State>>,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    known(&token)?;
    let asked = state.engine.pending_approval(&token).await?;
    let wants_json = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|a| a.contains("json"));
    if wants_json {
        let PendingApproval { run, workflow, step, approvers, payload } = asked;
        let shown = json!({
            "run_id": run.to_string(),
            "workflow": workflow,
            "step": step,
            "approvers": approvers,
            "payload": payload.into_value(),
        });
        return Ok(Json(shown).into_response());
    }
    Ok(page(&question(&asked), StatusCode::OK))
}

/// `POST /approve/{token}`: records the decision, from a form (`decision`, `by`, `comment`) or JSON
/// (`approved`, `by`, `comment`).
pub async fn decide(
    Extract(state): Extract<Arc<State>>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    known(&token)?;
    let is_form = Declared::of_headers(request.headers()) == Declared::Form;
    let body = read(&state, request).await?;
    // JSON under the type that is a client's default is JSON.
    if !is_form || body.is_json() {
        return Ok(answer(&state, &token, Answer::Done(body)).await?.into_response());
    }
    let mut fields = std::collections::BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(body.bytes()) {
        let shown = name.chars().take(40).collect::<String>().escape_debug().to_string();
        if !["decision", "by", "comment"].contains(&name.as_ref()) {
            return Err(ApiError::invalid_field(
                "form",
                format!("unknown field `{shown}`; expected decision, by, comment"),
            ));
        }
        if fields.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(ApiError::invalid_field("form", format!("duplicate field `{shown}`")));
        }
    }
    let field = |name: &str| fields.get(name).filter(|value| !value.trim().is_empty()).cloned();
    let approved = match field("decision").as_deref() {
        Some("approve") => true,
        Some("reject") => false,
        _ => return Err(ApiError::invalid_field("decision", "expected approve or reject")),
    };
    let decision = json!({ "approved": approved, "by": field("by"), "comment": field("comment") });
    let Json(_) = answer(&state, &token, Answer::Done(Body::new(decision.to_string()))).await?;
    let said = if approved {
        "Approved. You can close this page."
    } else {
        "Rejected. You can close this page."
    };
    Ok(page(&format!("<p>{said}</p>"), StatusCode::OK))
}

fn question(asked: &PendingApproval) -> String {
    let payload = match &asked.payload {
        crate::model::Payload::Json(value) => {
            serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
        }
        other => other.to_body(),
    };
    let payload: String = payload.chars().take(SHOWN_CHARS_MAX).collect();
    let by = match asked.approvers.as_slice() {
        [] => "<label>Your name <input name=by></label>".to_owned(),
        names => {
            let options: String =
                names.iter().map(|name| format!("<option>{}</option>", escaped(name))).collect();
            format!("<label>Approver <select name=by>{options}</select></label>")
        }
    };
    let (workflow, step, run) = (escaped(&asked.workflow), escaped(&asked.step), asked.run);
    format!(
        "<h1>{workflow}: {step}</h1><p>The run <code>{run}</code> is waiting for your decision.</p>\
         <pre>{}</pre>\
         <form method=post>{by}<label>Comment <input name=comment></label>\
         <button name=decision value=approve>Approve</button>\
         <button name=decision value=reject>Reject</button></form>",
        escaped(&payload)
    )
}

fn page(content: &str, status: StatusCode) -> Response {
    const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;\
        margin:2rem auto;padding:0 1rem}\
        pre{background:#f4f4f4;padding:1rem;overflow:auto;max-height:24rem}\
        label{display:block;margin:.5rem 0}\
        button{margin:1rem 1rem 0 0;padding:.4rem 1.2rem}";
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width\">\
         <title>tidehook</title><style>{STYLE}</style>{content}"
    );
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors \
             'none'",
        ),
    ];
    (status, headers, Html(html)).into_response()
}

/// Text from outside, escaped for HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Payload, RunId};

    #[test]
    fn foreign_text_stays_text_in_the_page() {
        let asked = PendingApproval {
            run: RunId(ulid::Ulid(1)),
            workflow: "a<b>".to_owned(),
            step: "ok".to_owned(),
            approvers: vec!["\"><script>".to_owned()],
            payload: Payload::Text("</pre><script>alert(1)</script>".to_owned()),
        };
        let page = question(&asked);
        assert!(!page.contains("<script>") && page.contains("a&lt;b&gt;"), "{page}");
    }
}
