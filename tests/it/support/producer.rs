//! A producer that remembers what was acknowledged, and the verdict over it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::endpoint::{Endpoint, PATIENCE};
use super::world::client;

/// Acknowledged keys and the event ids they were answered with; the answers that were no
/// acknowledgement.
#[derive(Debug, Default)]
pub struct Ledger {
    pub acked: BTreeMap<String, BTreeSet<String>>,
    pub sent: BTreeSet<String>,
    pub refused: Vec<(u16, Duration)>,
    pub last_refusal: Option<Instant>,
}

/// Posts `count` events at a rate, each under a key of its own, and repeats each until it is
/// acknowledged.
pub async fn produce(url: String, prefix: &'static str, count: usize, per_second: u32) -> Ledger {
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let http = client();
    let start = tokio::time::Instant::now();
    let mut sending = tokio::task::JoinSet::new();
    for n in 0..count {
        let at = start + Duration::from_secs(1) * u32::try_from(n).unwrap() / per_second;
        let (http, url, ledger) = (http.clone(), url.clone(), Arc::clone(&ledger));
        sending.spawn(async move {
            tokio::time::sleep_until(at).await;
            let key = format!("{prefix}-{n}");
            ledger.lock().unwrap().sent.insert(key.clone());
            let body = json!({ "k": key, "n": n }).to_string();
            let end = tokio::time::Instant::now() + PATIENCE;
            while tokio::time::Instant::now() < end {
                let began = Instant::now();
                let request = http.post(&url).header("idempotency-key", &key).body(body.clone());
                let answer = match request.send().await {
                    Ok(response) => {
                        let status = response.status().as_u16();
                        response.text().await.ok().map(|text| (status, text))
                    }
                    Err(_) => None,
                };
                match answer {
                    Some((200..300, text)) => {
                        let answer: Value = serde_json::from_str(&text).unwrap();
                        let id = answer["event_id"].as_str().unwrap().to_owned();
                        ledger.lock().unwrap().acked.entry(key).or_default().insert(id);
                        return;
                    }
                    Some((status, _)) => {
                        let mut ledger = ledger.lock().unwrap();
                        ledger.refused.push((status, began.elapsed()));
                        ledger.last_refusal = Some(Instant::now());
                    }
                    None => {}
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    sending.join_all().await;
    Arc::into_inner(ledger).unwrap().into_inner().unwrap()
}

impl Ledger {
    /// The ledger of two producers together.
    pub fn and(mut self, other: Self) -> Self {
        self.acked.extend(other.acked);
        self.sent.extend(other.sent);
        self.refused.extend(other.refused);
        self
    }

    /// Waits until every acknowledged key has arrived, and judges what came: nothing lost, nothing
    /// that was never sent, one event and one webhook id per key. Answers how often each key came.
    pub async fn verdict(&self, receiver: &Endpoint, path: &str) -> BTreeMap<String, usize> {
        let key = |body: &[u8]| {
            serde_json::from_slice::<Value>(body).unwrap()["k"].as_str().unwrap().to_owned()
        };
        let got = receiver
            .until("every acknowledged key", |got| {
                let arrived: BTreeSet<String> =
                    got.iter().filter(|g| g.path.starts_with(path)).map(|g| key(&g.body)).collect();
                self.acked.keys().all(|k| arrived.contains(k))
            })
            .await;
        let mut copies: BTreeMap<String, usize> = BTreeMap::new();
        let mut webhook_ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for g in got.iter().filter(|g| g.path.starts_with(path)) {
            let key = key(&g.body);
            assert!(self.sent.contains(&key), "{key} was never sent");
            *copies.entry(key.clone()).or_default() += 1;
            webhook_ids
                .entry(key)
                .or_default()
                .insert(g.header("webhook-id").unwrap_or("").to_owned());
        }
        for (key, ids) in &self.acked {
            assert_eq!(ids.len(), 1, "{key} has two events: {ids:?}");
            assert_eq!(webhook_ids[key].len(), 1, "{key} has two webhook ids");
        }
        copies
    }
}
