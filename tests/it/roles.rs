//! One container in parts: processes that take requests, work and keep house apart.

use serde_json::Value;

use crate::support::endpoint::Endpoint;
use crate::support::process::{Home, until_ready};
use crate::support::stores::{Kind, url};
use crate::support::world::client;

fn file(database: &str, receiver: &Endpoint) -> String {
    let driver = database.split(':').next().unwrap();
    format!(
        "database: {{ driver: {driver}, url: \"{database}\" }}\n\
         server: {{ port: {{port}}, bind: 127.0.0.1, allow_private_urls: true }}\n\
         sources: {{ app: {{ type: event }}, often: {{ type: cron, schedule: \"* * * * * *\" }} }}\n\
         handlers:\n  h: {{ source: app, url: \"{}\" }}\n  tick: {{ source: often, url: \"{}\" }}\n\
         queues: {{ q: {{ source: app }} }}\n",
        receiver.url("/ok/h"),
        receiver.url("/ok/tick"),
    )
}

async fn status(home: &Home, path: &str) -> u16 {
    client().post(home.url(path)).body("{}").send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn ingress_worker_and_ticker_run_as_processes_of_their_own_on_one_database() {
    for kind in [Kind::Postgres, Kind::Mariadb] {
        let dir = tempfile::tempdir().unwrap();
        let Some(database) = url(kind, &dir).await else { return };
        let receiver = Endpoint::start().await;
        let homes: Vec<Home> = (0..3).map(|_| Home::new(&file(&database, &receiver))).collect();
        let mut servers = Vec::new();
        for (home, role) in homes.iter().zip(["ingress", "worker", "ticker"]) {
            servers.push(home.spawn_as(&["--roles", role]));
            until_ready(&home.url("/readyz")).await;
        }
        assert_eq!(status(&homes[0], "/events/app/x").await, 202);
        for home in &homes[1..] {
            assert_eq!(status(home, "/events/app/x").await, 404, "only ingress takes requests");
            let metrics = client().get(home.url("/metrics")).send().await.unwrap();
            assert!(metrics.status().is_success());
        }
        receiver
            .until("a delivery and two ticks", |got| {
                let at = |path: &str| got.iter().filter(|got| got.path == path).count();
                at("/ok/h") == 1 && at("/ok/tick") >= 2
            })
            .await;
        let text = client().get(homes[0].url("/api/queues/q/messages?wait=5s")).send().await;
        let got: Value = serde_json::from_str(&text.unwrap().text().await.unwrap()).unwrap();
        assert_eq!(got["messages"].as_array().unwrap().len(), 1);
        // Without a worker, what is accepted waits; another worker takes it.
        servers.remove(1).stop().await;
        assert_eq!(status(&homes[0], "/events/app/x").await, 202);
        let again = homes[1].spawn_as(&["--roles", "worker"]);
        receiver
            .until("the second delivery", |got| {
                got.iter().filter(|got| got.path == "/ok/h").count() == 2
            })
            .await;
        again.stop().await;
        for server in servers {
            assert!(server.stop().await.0.success());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_database_cannot_be_shared_by_roles() {
    let receiver = Endpoint::start().await;
    let home = Home::new(&file("sqlite:{dir}/t.db", &receiver));
    assert_eq!(home.spawn_as(&["--roles", "worker"]).ended().await.code(), Some(1));
    assert!(home.log().contains("use Postgres or MySQL, or all roles"), "{}", home.log());
    assert_eq!(home.spawn_as(&["--roles", "web"]).ended().await.code(), Some(2));
    assert!(home.log().contains("there is no role `web`"), "{}", home.log());
}
