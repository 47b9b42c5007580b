//! The load benchmark: the real binary under load, on SQLite and on Postgres, with qhook beside it
//! in the same run when one is at hand. Prints one JSON object a line. `scripts/bench.sh` runs it;
//! `docs/benchmarks.md` explains it.
#![allow(missing_docs, reason = "a program, not a library")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark that cannot go on stops"
)]

#[path = "../../tests/it/support/database.rs"]
mod database;
mod engine;
mod figures;
mod generate;
mod lanes;
mod scenarios;
mod sink;
mod standing;
mod steady;

use clap::Parser;
use engine::{Kind, Store};
use serde_json::json;

/// Measures tidehook under load.
#[derive(Debug, Parser)]
pub struct Options {
    /// Short runs, for trying out
    #[arg(long)]
    quick: bool,
    /// Only scenarios whose names hold this
    #[arg(long)]
    only: Option<String>,
    /// No scenarios whose names hold this
    #[arg(long)]
    skip: Option<String>,
    /// Only this store: sqlite, postgres or mariadb
    #[arg(long)]
    store: Option<String>,
    /// How often each scenario runs, engines taking turns
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// A Postgres server that may be filled with databases
    #[arg(long, env = "TIDEHOOK_BENCH_POSTGRES")]
    postgres: Option<String>,
    /// A MariaDB server that may be filled with databases
    #[arg(long, env = "TIDEHOOK_BENCH_MARIADB")]
    mariadb: Option<String>,
    /// qhook's binary
    #[arg(long, env = "TIDEHOOK_BENCH_QHOOK")]
    qhook: Option<std::path::PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn wants(&self, scenario: &str) -> bool {
        self.only.as_deref().is_none_or(|only| scenario.contains(only))
            && self.skip.as_deref().is_none_or(|skip| !scenario.contains(skip))
    }
}

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let options = Options::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let sink = sink::Sink::start().await;
    let mut stores = vec![Store::Sqlite];
    match &options.postgres {
        Some(server) => stores.push(Store::Postgres(server.clone())),
        None => eprintln!("no Postgres: TIDEHOOK_BENCH_POSTGRES names none"),
    }
    match &options.mariadb {
        Some(server) => stores.push(Store::Mariadb(server.clone())),
        None => eprintln!("no MariaDB: TIDEHOOK_BENCH_MARIADB names none"),
    }
    stores.retain(|store| options.store.as_deref().is_none_or(|wanted| wanted == store.name()));
    for store in &stores {
        for scenario in scenarios::all(options.quick) {
            if !options.wants(scenario.name) {
                continue;
            }
            for round in 1..=options.rounds {
                let mut kinds = vec![Kind::Tidehook];
                // qhook's driver for MySQL is not in the binary that is compared.
                let is_for_qhook = scenario.with_qhook && !matches!(store, Store::Mariadb(_));
                kinds.extend(options.qhook.clone().filter(|_| is_for_qhook).map(Kind::Qhook));
                for kind in kinds {
                    eprintln!(
                        "{} on {}, {}, round {round}",
                        scenario.name,
                        store.name(),
                        kind.name()
                    );
                    let mut line = scenarios::run(&scenario, &kind, store, &sink).await;
                    line["scenario"] = json!(scenario.name);
                    line["store"] = json!(store.name());
                    line["engine"] = json!(kind.name());
                    line["round"] = json!(round);
                    println!("{line}");
                }
            }
        }
        if options.wants("steady state with retention") {
            eprintln!("steady state with retention on {}", store.name());
            let events = if options.quick { 6_000 } else { 120_000 };
            let mut line = steady::steady_state(store, &sink, events, options.rounds).await;
            line["scenario"] = json!("steady state with retention");
            line["store"] = json!(store.name());
            println!("{line}");
        }
        for standing in
            standing::Standing::ALL.into_iter().filter(|standing| standing.is_for(store))
        {
            if !options.wants(standing.name()) {
                continue;
            }
            eprintln!("{} on {}", standing.name(), store.name());
            let mut line = standing.run(store, &sink, options.quick).await;
            line["scenario"] = json!(standing.name());
            line["store"] = json!(store.name());
            println!("{line}");
        }
    }
}
