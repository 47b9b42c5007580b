//! Where an event goes: event + routes → the work it causes.

use serde_json::Value;

use super::filter::{Filter, Refused};
use super::operand::Scope;
use super::pattern::Pattern;
use crate::model::job::NewJob;
use crate::model::json::Type;
use crate::model::{Ids, Inbound, JobId, Path, Target};

/// One consumer of events, compiled from the configuration.
#[derive(Debug, Clone)]
pub struct Route {
    /// Who gets the event.
    pub target: Target,
    /// The source it listens to.
    pub source: String,
    /// Which types it wants; empty is all.
    pub events: Vec<Pattern>,
    /// Which payloads it wants.
    pub filter: Option<Filter>,
    /// The name under which its keys are kept: its first one, so that a renamed consumer still knows what it has seen.
    pub key_name: String,
    /// Where the payload holds the key under which this consumer wants an event once.
    pub idempotency_key: Option<Path>,
}

/// All consumers.
#[derive(Debug, Clone, Default)]
pub struct Routes(pub Vec<Route>);

/// The work an event causes.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The deliveries, in the order of the configuration.
    pub jobs: Vec<NewJob>,
    /// Consumers of the event's source that do not get it, and why.
    pub misses: Vec<Miss>,
}

/// A consumer that does not get an event of its source.
#[derive(Debug, Clone, PartialEq)]
pub struct Miss {
    /// Who.
    pub target: Target,
    /// Why.
    pub why: Unmatched,
}

/// Why a consumer does not get an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Unmatched {
    /// It listens to another source.
    Source,
    /// None of its patterns matches the type or an alias.
    Events,
    /// Its filter says no.
    Filter(Refused),
}

impl Unmatched {
    /// For people: the first clause of a route that said no, and what it saw.
    pub fn sentence(&self, route: &Route, inbound: &Inbound) -> String {
        match self {
            Self::Source => "it listens to another source".to_owned(),
            Self::Events => {
                let names: Vec<&str> = std::iter::once(&inbound.kind).chain(&inbound.aliases).map(String::as_str).collect();
                let patterns: Vec<&str> = route.events.iter().map(Pattern::text).collect();
                format!("none of its patterns `{}` matches `{}`", patterns.join("`, `"), names.join("`, `"))
            }
            Self::Filter(refused) => {
                let saw = refused.saw.as_ref().map_or("nothing".to_owned(), Value::to_string);
                format!("`{}` does not hold: it saw {saw}", refused.clause)
            }
        }
    }
}

impl Route {
    /// Why this consumer does not get the event; `None` when it does.
    pub fn refuses(&self, inbound: &Inbound) -> Option<Unmatched> {
        if self.source != inbound.source {
            return Some(Unmatched::Source);
        }
        let names = || std::iter::once(&inbound.kind).chain(&inbound.aliases);
        if !self.events.is_empty() && !self.events.iter().any(|pattern| names().any(|name| pattern.matches(name))) {
            return Some(Unmatched::Events);
        }
        let filter = self.filter.as_ref()?;
        let context = context(inbound);
        let scope = Scope { context: &context, ..Scope::of(inbound.body.view().map_err(|why| why.why.as_str())) };
        if filter.holds(&scope) { None } else { filter.refused_by(&scope).map(Unmatched::Filter) }
    }
}

/// What `$$` means where only the event is known.
pub fn context(inbound: &Inbound) -> Value {
    serde_json::json!({ "event": { "source": inbound.source, "type": inbound.kind } })
}

/// Which jobs an event causes. The same function answers a dry run.
pub fn plan(routes: &Routes, inbound: &Inbound, ids: &dyn Ids) -> Plan {
    let mut plan = Plan::default();
    for route in routes.0.iter().filter(|route| route.source == inbound.source) {
        let target = route.target.clone();
        match route.refuses(inbound) {
            Some(why) => plan.misses.push(Miss { target, why }),
            None => plan.jobs.push(NewJob { id: JobId::next(ids), target, key: consumer_key(route, inbound), start: false }),
        }
    }
    plan
}

/// Every consumer of the event's source, and why it does not get the event; `None` for those that do. The same
/// function as routing.
pub fn explain<'a>(routes: &'a Routes, inbound: &Inbound) -> Vec<(&'a Route, Option<Unmatched>)> {
    let of_source = routes.0.iter().filter(|route| route.source == inbound.source);
    of_source.map(|route| (route, route.refuses(inbound))).collect()
}

/// The consumer's key: scoped by consumer, source and event type, so that two consumers or two event
/// types never suppress each other. Only scalars are keys, and `1` is another key than `"1"`.
fn consumer_key(route: &Route, inbound: &Inbound) -> Option<(String, String)> {
    let path = route.idempotency_key.as_ref()?;
    let value = path.one(inbound.body.view().ok()?)?;
    let key = match value.kind() {
        Type::Null | Type::Array | Type::Object => return None,
        // A number as it is written: two that differ beyond a double are two keys.
        Type::Bool(_) | Type::Number | Type::String => value.to_value().to_string(),
    };
    let scope = format!("{}:{}|{}|{}", route.target.kind(), route.key_name, inbound.source, inbound.kind);
    Some((scope, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Body;
    use crate::model::{ManualClock, SeededIds};

    fn inbound(kind: &str, body: &str) -> Inbound {
        Inbound {
            source: "shop".into(),
            kind: kind.into(),
            aliases: vec!["event".into()],
            headers: Vec::new(),
            body: Body::new(body.as_bytes().to_vec()),
            dedupe_key: None,
            idempotency_key: None,
        }
    }

    fn route(name: &str, events: &[&str], filter: Option<&str>) -> Route {
        Route {
            target: Target::Handler(name.into()),
            source: "shop".into(),
            events: events.iter().map(|e| Pattern::parse(e)).collect(),
            filter: filter.map(|f| Filter::parse(f).unwrap()),
            key_name: name.to_owned(),
            idempotency_key: Some(Path::parse("$.id").unwrap()),
        }
    }

    fn planned(routes: Vec<Route>, inbound: &Inbound) -> Vec<NewJob> {
        plan(&Routes(routes), inbound, &SeededIds::new(1, &ManualClock::default())).jobs
    }

    #[test]
    fn an_event_goes_to_every_consumer_whose_patterns_and_filter_match() {
        let routes = vec![
            route("all", &[], None),
            route("paid", &["order.paid"], None),
            route("alias", &["event"], None),
            route("big", &["order.*"], Some("$.amount > 100")),
            route("other", &["user.*"], None),
            route("typed", &[], Some("$$.event.type == order.paid")),
        ];
        let jobs = planned(routes, &inbound("order.paid", r#"{"id": 1, "amount": 50}"#));
        let names: Vec<&str> = jobs.iter().map(|j| j.target.name()).collect();
        assert_eq!(names, ["all", "paid", "alias", "typed"]);
    }

    #[test]
    fn keys_are_scalars_and_scoped_by_consumer_and_type() {
        let key = |kind: &str, body: &str| planned(vec![route("a", &[], None)], &inbound(kind, body))[0].key.clone();
        assert_eq!(key("x", r#"{"id": 1}"#), Some(("handler:a|shop|x".into(), "1".into())));
        assert_eq!(key("x", r#"{"id": "1"}"#), Some(("handler:a|shop|x".into(), "\"1\"".into())));
        assert_ne!(key("x", r#"{"id": 1}"#), key("y", r#"{"id": 1}"#));
        for none in [r#"{"id": null}"#, r#"{"id": [1]}"#, r#"{}"#, "not json"] {
            assert_eq!(key("x", none), None, "{none}");
        }
    }

    #[test]
    fn a_refusal_names_its_reason() {
        let event = inbound("order.paid", r#"{"amount": 5}"#);
        assert_eq!(route("a", &["user.*"], None).refuses(&event), Some(Unmatched::Events));
        assert!(
            matches!(route("a", &[], Some("$.amount > 9")).refuses(&event), Some(Unmatched::Filter(r)) if r.clause == "$.amount > 9")
        );
    }
}
