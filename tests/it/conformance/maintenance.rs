use std::time::Duration;

use tidehook::decide::settle::NextState;
use tidehook::model::Timestamp;
use tidehook::store::{Accepted, EventFilter, Page, Rejection};

use super::build::*;
use super::on_every_store;
use crate::support::stores::{self, Fresh, Kind};

on_every_store!(
    pruning_takes_what_has_ended_and_is_old,
    pruning_never_takes_open_work,
    keys_outlive_their_events,
    rejections_are_counted_by_source_and_reason,
    migrating_twice_is_fine,
    no_setting_is_silently_weak,
);

const DAY: Duration = Duration::from_secs(86_400);
const PAGE: Page = Page { limit: 1000, newest_first: false };

async fn pruning_takes_what_has_ended_and_is_old(f: Fresh) {
    seed(&*f.store, &["a"], 5).await;
    for claimed in f.store.claim(&claim_request(5)).await.unwrap() {
        f.store.record(&[outcome(&claimed.job, dead())]).await.unwrap();
    }
    assert_eq!(f.store.prune(DAY, None, 100).await.unwrap().0, 0);
    f.clock.advance(DAY + Duration::from_secs(1));
    let (gone, next) = f.store.prune(DAY, None, 2).await.unwrap();
    assert_eq!(gone, 2);
    assert_eq!(f.store.prune(DAY, next, 100).await.unwrap().0, 3);
    assert_eq!(f.store.prune(DAY, None, 100).await.unwrap(), (0, None));
    assert!(f.store.events(&EventFilter::default(), PAGE).await.unwrap().is_empty());
    assert_eq!(f.store.totals().await.unwrap(), tidehook::store::Totals { open: 0, dead: 0 });
}

async fn pruning_never_takes_open_work(f: Fresh) {
    seed(&*f.store, &["a", "b"], 1).await;
    let claimed = claim_one(&*f.store).await;
    f.store.record(&[outcome(&claimed.job, NextState::Done)]).await.unwrap();
    f.clock.advance(DAY * 30);
    assert_eq!(f.store.prune(DAY, None, 100).await.unwrap().0, 0);
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
    assert_eq!(f.store.prune(DAY, None, 100).await.unwrap().0, 1);
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
