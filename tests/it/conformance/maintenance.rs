use std::time::Duration;

use tidehook::decide::settle::NextState;
use tidehook::model::{EventId, Keep, OldestKept, Retention, Timestamp};
use tidehook::store::error::Result;
use tidehook::store::{Accepted, EventFilter, Page, Rejection};

use super::build::*;
use super::on_every_store;
use crate::support::stores::{self, Fresh, Kind};

on_every_store!(
    pruning_takes_what_has_ended_and_is_old,
    what_is_dead_may_be_kept_longer,
    of_ended_work_so_much_may_be_kept_as_a_count_says,
    pruning_never_takes_open_work,
    keys_outlive_their_events,
    rejections_are_counted_by_source_and_reason,
    migrating_twice_is_fine,
    no_setting_is_silently_weak,
);

const DAY: Duration = Duration::from_secs(86_400);
const PAGE: Page = Page { limit: 1000, newest_first: false };

async fn prune(f: &Fresh, from: Option<EventId>, most: u32) -> Result<(u64, Option<EventId>)> {
    f.store.prune(&Retention::of(DAY), &OldestKept::default(), from, most).await
}

async fn pruning_takes_what_has_ended_and_is_old(f: Fresh) {
    seed(&*f.store, &["a"], 5).await;
    for claimed in f.store.claim(&claim_request(5)).await.unwrap() {
        f.store.record(&[outcome(&claimed.job, dead())]).await.unwrap();
    }
    assert_eq!(prune(&f, None, 100).await.unwrap().0, 0);
    f.clock.advance(DAY + Duration::from_secs(1));
    let (gone, next) = prune(&f, None, 2).await.unwrap();
    assert_eq!(gone, 2);
    assert_eq!(prune(&f, next, 100).await.unwrap().0, 3);
    assert_eq!(prune(&f, None, 100).await.unwrap(), (0, None));
    assert!(f.store.events(&EventFilter::default(), PAGE).await.unwrap().is_empty());
    assert_eq!(f.store.totals().await.unwrap(), tidehook::store::Totals { open: 0, dead: 0 });
}

/// Deletes by a retention what it can, and answers how many events are left.
async fn left_by(f: &Fresh, retention: &Retention) -> usize {
    let kept = f.store.oldest_kept(retention).await.unwrap();
    let mut from = None;
    loop {
        match f.store.prune(retention, &kept, from, 2).await.unwrap() {
            (_, None) => break,
            (_, next) => from = next,
        }
    }
    f.store.events(&EventFilter::default(), PAGE).await.unwrap().len()
}

/// Four events that are delivered and three whose deliveries are dead, in turn.
async fn delivered_and_dead(f: &Fresh) {
    f.store.upsert_lanes(&[spec("a")]).await.unwrap();
    for n in 0..7 {
        accept(&*f.store, new_event(&["a"])).await;
        let ends = if n % 2 == 0 { NextState::Done } else { dead() };
        let claimed = claim_one(&*f.store).await;
        f.store.record(&[outcome(&claimed.job, ends)]).await.unwrap();
        f.clock.advance(Duration::from_secs(1));
    }
}

async fn what_is_dead_may_be_kept_longer(f: Fresh) {
    delivered_and_dead(&f).await;
    let keep = |age| Keep { age, count: None };
    let retention = Retention { completed: keep(DAY), dead: keep(DAY * 3) };
    f.clock.advance(DAY);
    assert_eq!(left_by(&f, &retention).await, 3);
    assert_eq!(f.store.totals().await.unwrap().dead, 3);
    f.clock.advance(DAY * 2);
    assert_eq!(left_by(&f, &retention).await, 0);
    assert_eq!(f.store.totals().await.unwrap().dead, 0);
}

async fn of_ended_work_so_much_may_be_kept_as_a_count_says(f: Fresh) {
    delivered_and_dead(&f).await;
    let (day, counted) = (|count| Keep { age: DAY, count }, Some);
    let all = Retention { completed: day(counted(7)), dead: day(counted(3)) };
    assert_eq!(left_by(&f, &all).await, 7, "there are no more than that");
    // Of the dead ones the newest two, and what is delivered among the newest four.
    let some = Retention { completed: day(counted(4)), dead: day(counted(2)) };
    assert_eq!(left_by(&f, &some).await, 4);
    assert_eq!(f.store.totals().await.unwrap().dead, 2);
    let few = Retention { completed: day(counted(1)), dead: day(None) };
    assert_eq!(left_by(&f, &few).await, 3, "the last one, and what is dead");
    // What is open is kept, however much newer work there is.
    accept(&*f.store, new_event(&["a"])).await;
    delivered_later(&f).await;
    let none = Retention { completed: day(counted(1)), dead: day(counted(1)) };
    assert_eq!(left_by(&f, &none).await, 3);
}

/// An event whose delivery is dead and one that is delivered, behind one that stays open.
async fn delivered_later(f: &Fresh) {
    let open = claim_one(&*f.store).await;
    for ends in [dead(), NextState::Done] {
        accept(&*f.store, new_event(&["a"])).await;
        let claimed = claim_one(&*f.store).await;
        assert_ne!(claimed.job.id, open.job.id);
        f.store.record(&[outcome(&claimed.job, ends)]).await.unwrap();
    }
}

async fn pruning_never_takes_open_work(f: Fresh) {
    seed(&*f.store, &["a", "b"], 1).await;
    let claimed = claim_one(&*f.store).await;
    f.store.record(&[outcome(&claimed.job, NextState::Done)]).await.unwrap();
    f.clock.advance(DAY * 30);
    assert_eq!(prune(&f, None, 100).await.unwrap().0, 0);
    let open = claim_one(&*f.store).await;
    assert_eq!(f.store.events_by_id(&[open.job.event]).await.unwrap().len(), 1);
}

async fn keys_outlive_their_events(f: Fresh) {
    let keyed = || {
        let mut new_event = new_event(&[]);
        new_event.inbound.dedupe_key = Some("k".into());
        new_event.key_ttl = DAY * 7;
        new_event
    };
    let first = keyed();
    let id = first.id;
    accept(&*f.store, first).await;
    f.clock.advance(DAY * 2);
    assert_eq!(prune(&f, None, 100).await.unwrap().0, 1);
    assert_eq!(f.store.forget_keys(100).await.unwrap(), 0);
    assert_eq!(accept(&*f.store, keyed()).await, Accepted::Duplicate(id));
    f.clock.advance(DAY * 6);
    assert_eq!(f.store.forget_keys(100).await.unwrap(), 1);
}

async fn rejections_are_counted_by_source_and_reason(f: Fresh) {
    let rejection = |source: &str, count| Rejection {
        source: source.into(),
        reason: "signature_wrong".into(),
        count,
        last_at: Timestamp(0),
    };
    f.store.reject(&[rejection("stripe", 2), rejection("github", 1)]).await.unwrap();
    f.store.reject(&[rejection("stripe", 3)]).await.unwrap();
    let counts: Vec<_> =
        f.store.rejections().await.unwrap().into_iter().map(|r| (r.source, r.count)).collect();
    assert_eq!(counts, [("github".to_owned(), 1), ("stripe".to_owned(), 5)]);
}

async fn migrating_twice_is_fine(f: Fresh) {
    seed(&*f.store, &["a"], 1).await;
    f.store.migrate().await.unwrap();
    claim_one(&*f.store).await;
}

async fn no_setting_is_silently_weak(f: Fresh) {
    // A throw-away test server may run without fsync; then the store must say so.
    for weakness in f.store.weaknesses().await.unwrap() {
        let says = ["off", "OFF", "memory", "innodb_flush_log_at_trx_commit"];
        assert!(says.iter().any(|word| weakness.contains(word)), "{weakness}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_is_not_there_is_said_and_not_made_through_a_pooler() {
    use crate::support::stores::pooled_without_schema;
    let Some(store) = pooled_without_schema().await else { return };
    let error = store.migrate().await.unwrap_err().to_string();
    assert!(error.contains("TIDEHOOK_MIGRATE_URL"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_gone_back_to_runs_on_a_newer_schema() {
    let dir = tempfile::tempdir().unwrap();
    let url =
        crate::support::stores::url(crate::support::stores::Kind::Sqlite, &dir).await.unwrap();
    let store = crate::support::stores::open(&url, None).await;
    store.migrate().await.unwrap();
    store.close().await;
    drop(store);
    let mut conn = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, \
        execution_time) VALUES (999, 'newer', 1, x'00', 1)";
    sqlx::raw_sql(newer).execute(&mut conn).await.unwrap();
    drop(conn);
    crate::support::stores::open(&url, None).await.migrate().await.unwrap();
}

#[tokio::test]
async fn a_schema_says_what_it_lacks() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let dir = tempfile::tempdir().unwrap();
        let Some(url) = stores::url(kind, &dir).await else { continue };
        let store = stores::open(&url, None).await;
        assert!(store.missing_migrations().await.unwrap() > 3, "{kind:?}: there is none");
        store.migrate().await.unwrap();
        assert_eq!(store.missing_migrations().await.unwrap(), 0, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_sets_connections_up_is_told_what_it_leaves_out() {
    use tidehook::model::{Pooler, Secret};
    use tidehook::store::postgres::SETTINGS;
    use tidehook::store::{self, Address};
    let dir = tempfile::tempdir().unwrap();
    let Some(url) = crate::support::stores::url(crate::support::stores::Kind::Postgres, &dir).await
    else {
        return;
    };
    crate::support::stores::open(&url, None).await.migrate().await.unwrap();
    let behind = || async {
        let address =
            Address { pooler: Pooler::RdsProxy, ..Address::new(Secret::new(url.as_str()), 2) };
        store::connect(address).await.unwrap()
    };
    let lacking = behind().await.weaknesses().await.unwrap();
    assert!(
        lacking.iter().any(|why| why.contains("statement_timeout is 0, but must be 10s")),
        "{lacking:?}"
    );
    // What the proxy does with each new connection, a database can do as well.
    let name = url.rsplit('/').next().unwrap();
    let set: String = SETTINGS
        .iter()
        .map(|(key, value)| format!("ALTER DATABASE {name} SET {key} = '{value}';"))
        .collect();
    let mut operator = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&mut operator).await.unwrap();
    let store = behind().await;
    let lacking = store.weaknesses().await.unwrap();
    assert!(!lacking.iter().any(|why| why.contains("init query")), "{lacking:?}");
    seed(&*store, &["a"], 2).await;
    let claimed = claim_one(&*store).await;
    store.record(&[outcome(&claimed.job, NextState::Done)]).await.unwrap();
    let file =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/infra/proxy.yaml")).unwrap();
    let query: Vec<String> =
        SETTINGS.iter().map(|(key, value)| format!("SET {key} = '{value}'")).collect();
    assert!(
        file.contains(&format!("InitQuery: \"{}\"", query.join("; "))),
        "infra/proxy.yaml has the init query\n{}",
        query.join("; ")
    );
}
