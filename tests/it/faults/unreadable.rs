//! A row that cannot be read: it holds up its own run, says so wherever people look, and goes on
//! when it is mended.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use crate::support::stores::Kind;
use crate::support::world::{Runtime, World};

const TEXT: &str = "server: { allow_private_urls: true }
sources: { app: { type: event } }
workflows:
  w:
    source: app
    steps: [{ name: ask, type: callback }, { name: after, url: \"http://{receiver}/ok/{{ $.n }}\" }]
";

async fn execute(world: &World, kind: Kind, text: String) {
    match kind {
        Kind::Sqlite => {
            let mut conn = SqliteConnection::connect(&world.database).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut conn).await.unwrap();
        }
        _ => {
            let mut conn = PgConnection::connect(&world.database).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut conn).await.unwrap();
        }
    }
}

/// A run that waits for an answer: its id and the token.
async fn waiting(world: &World) -> (String, String) {
    let event =
        world.post("/events/app/x", &[("content-type", "application/json")], "{}").await.event();
    world.until_waiting(&event).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_be_read_harms_no_other_and_is_named() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let Some(world) = World::start_as(Runtime::Container(kind), TEXT).await else {
            continue;
        };
        let ((broken, token), (_, other)) = (waiting(&world).await, waiting(&world).await);
        execute(
            &world,
            kind,
            format!("UPDATE runs SET state = 'x' || state WHERE id = '{broken}'"),
        )
        .await;

        // Lists, the run itself, the check of all runs, and an answer to it say what is wrong.
        let runs = world.get("/api/runs").await.json();
        let of = |runs: &Value, id: &str| {
            runs["runs"].as_array().unwrap().iter().find(|run| run["id"] == id).cloned().unwrap()
        };
        assert_eq!(runs["runs"].as_array().unwrap().len(), 2);
        assert!(
            of(&runs, &broken)["unreadable"].as_str().unwrap().contains("its state cannot be read"),
            "{runs}"
        );
        assert!(world.get(&format!("/api/runs/{broken}")).await.json()["unreadable"].is_string());
        let faults = world.get("/api/fsck").await.json()["faults"].clone();
        assert_eq!(
            (faults.as_array().unwrap().len(), &faults[0]["run_id"]),
            (1, &Value::String(broken.clone()))
        );
        let answer = world.post(&format!("/callback/{token}"), &[], "{\"n\": 1}").await;
        assert!(
            answer.status == 409 && answer.text.contains("cannot continue"),
            "{} {}",
            answer.status,
            answer.text
        );

        // The other one goes on.
        assert_eq!(world.post(&format!("/callback/{other}"), &[], "{\"n\": 2}").await.status, 200);
        assert_eq!(world.receiver.until_count(1).await[0].path, "/ok/2");

        // Mended, it goes on as if nothing had been.
        execute(
            &world,
            kind,
            format!("UPDATE runs SET state = SUBSTR(state, 2) WHERE id = '{broken}'"),
        )
        .await;
        assert_eq!(world.post(&format!("/callback/{token}"), &[], "{\"n\": 1}").await.status, 200);
        assert_eq!(world.receiver.until_count(2).await[1].path, "/ok/1");
        assert!(world.get("/api/fsck").await.json()["faults"].as_array().unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_be_read_can_be_ended() {
    let world = World::container(TEXT).await;
    let (broken, _) = waiting(&world).await;
    execute(&world, Kind::Sqlite, format!("UPDATE runs SET state = '{{}}' WHERE id = '{broken}'"))
        .await;
    let answer = world.post(&format!("/api/runs/{broken}/kill"), &[], "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(world.get(&format!("/api/runs/{broken}")).await.json()["status"], "cancelled");
}
