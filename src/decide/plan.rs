//! Plans which handlers and workflows get an event, and the jobs that this causes.

use std::time::Duration;

use serde_json::Value;

use super::filter::{Filter, Refused};
use super::operand::Scope;
use super::pattern::Pattern;
use crate::model::job::NewJob;
use crate::model::json::Type;
use crate::model::{EventId, Ids, Inbound, JobId, Path, Target};

/// One handler or workflow as a consumer of events, compiled from the configuration.
#[derive(Debug, Clone)]
pub struct Route {
    /// The handler or workflow that gets the event.
    pub target: Target,
    /// The source it listens to.
    pub source: String,
    /// The patterns for event types it accepts; empty accepts every type.
    pub events: Vec<Pattern>,
    /// The condition that the payload must meet; `None` accepts every payload.
    pub filter: Option<Filter>,
    /// The name under which idempotency keys are stored: the consumer's first name, so that it
    /// still knows them after it was renamed.
    pub key_name: String,
    /// The path to the idempotency key in the payload. Of several events with the same key, the
    /// consumer gets one.
    pub idempotency_key: Option<Path>,
}

/// Every route of the configuration, in its order. `plan` and `explain` search all of them.
#[derive(Debug, Clone, Default)]
pub struct Routes(pub Vec<Route>);

/// The jobs that an event causes, and the consumers that it missed.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// One job for each consumer that gets the event, in the order of the configuration.
    pub jobs: Vec<NewJob>,
    /// Consumers of the event's source that do not get it, and why.
    pub misses: Vec<SkippedConsumer>,
}

/// An event to be stored, with all the jobs it causes.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The id it gets, unless it is a duplicate.
    pub id: EventId,
    /// The verified request: source, type, headers, body and keys.
    pub inbound: Inbound,
    /// The jobs that the event causes, as routing decided.
    pub plan: Plan,
    /// How long its keys (idempotency and deduplication) are remembered.
    pub key_ttl: Duration,
    /// How long its deliveries may wait before they expire; `None` is without limit.
    pub event_ttl: Option<Duration>,
    /// How long the lease lasts for jobs that start with the commit.
    pub lease: Duration,
}

/// A consumer that does not get an event of its source.
#[derive(Debug, Clone, PartialEq)]
pub struct SkippedConsumer {
    /// The handler or workflow that does not get the event.
    pub target: Target,
    /// Which of its conditions the event does not meet.
    pub why: Unmatched,
}

/// Why a consumer does not get an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Unmatched {
    /// It listens to another source.
    Source,
    /// None of its patterns matches the type or an alias.
    Events,
    /// Its filter does not hold. The value names the first clause that was false.
    Filter(Refused),
}

impl Unmatched {
    /// For people: the first clause of a route that said no, and what it saw.
    pub fn sentence(&self, route: &Route, inbound: &Inbound) -> String {
        match self {
            Self::Source => "it listens to another source".to_owned(),
            Self::Events => {
                let names: Vec<&str> = std::iter::once(&inbound.kind)
                    .chain(&inbound.type_aliases)
                    .map(String::as_str)
                    .collect();
                let patterns: Vec<&str> = route.events.iter().map(Pattern::text).collect();
                format!(
                    "none of its patterns `{}` matches `{}`",
                    patterns.join("`, `"),
                    names.join("`, `")
                )
            }
            Self::Filter(refused) => {
                let saw = refused.saw.as_ref().map_or("missing".to_owned(), Value::to_string);
                format!("`{}` is not true: the value is {saw}", refused.clause)
            }
        }
    }
}

impl Route {
    /// Why this consumer does not get the event; `None` when it gets it.
    pub fn refuses(&self, inbound: &Inbound) -> Option<Unmatched> {
        if self.source != inbound.source {
            return Some(Unmatched::Source);
        }
        let names = || std::iter::once(&inbound.kind).chain(&inbound.type_aliases);
        if !self.events.is_empty()
            && !self.events.iter().any(|pattern| names().any(|name| pattern.matches(name)))
        {
            return Some(Unmatched::Events);
        }
        let filter = self.filter.as_ref()?;
        let context = context(inbound);
        let scope = Scope {
            context: &context,
            ..Scope::of(inbound.body.view().map_err(|why| why.why.as_str()))
        };
        if filter.holds(&scope) { None } else { filter.refused_by(&scope).map(Unmatched::Filter) }
    }
}

/// The value of `$$` where only the event is known: its source and type.
pub fn context(inbound: &Inbound) -> Value {
    serde_json::json!({ "event": { "source": inbound.source, "type": inbound.kind } })
}

/// Plans the jobs that an event causes. Routing and dry runs both use this function.
pub fn plan(routes: &Routes, inbound: &Inbound, ids: &dyn Ids) -> Plan {
    let mut plan = Plan::default();
    for route in routes.0.iter().filter(|route| route.source == inbound.source) {
        let target = route.target.clone();
        match route.refuses(inbound) {
            Some(why) => plan.misses.push(SkippedConsumer { target, why }),
            None => plan.jobs.push(NewJob {
                id: JobId::next(ids),
                target,
                key: consumer_key(route, inbound),
                due: None,
                start: false,
            }),
        }
    }
    plan
}

/// Every consumer of the event's source, and why it does not get the event; `None` for those that
/// do. The same function as routing.
pub fn explain<'a>(routes: &'a Routes, inbound: &Inbound) -> Vec<(&'a Route, Option<Unmatched>)> {
    let of_source = routes.0.iter().filter(|route| route.source == inbound.source);
    of_source.map(|route| (route, route.refuses(inbound))).collect()
}

/// The consumer's idempotency key as `(scope, key)`. The scope holds consumer, source and event
/// type, so that two of them never suppress each other. Only scalars are keys, and `1` is another
/// key than `"1"`.
fn consumer_key(route: &Route, inbound: &Inbound) -> Option<(String, String)> {
    let path = route.idempotency_key.as_ref()?;
    let value = path.one(inbound.body.view().ok()?)?;
    let key = match value.kind() {
        Type::Null | Type::Array | Type::Object => return None,
        // A number as it is written: two that differ beyond a double are two keys.
        Type::Bool(_) | Type::Number | Type::String => value.to_value().to_string(),
    };
    let scope =
        format!("{}:{}|{}|{}", route.target.kind(), route.key_name, inbound.source, inbound.kind);
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
            type_aliases: vec!["event".into()],
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
        let key = |kind: &str, body: &str| {
            planned(vec![route("a", &[], None)], &inbound(kind, body))[0].key.clone()
        };
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
        assert!(matches!(
            route("a", &[], Some("$.amount > 9")).refuses(&event),
            Some(Unmatched::Filter(r)) if r.clause == "$.amount > 9",
        ));
    }
}
