//! Engines built by hand: everything that a test does not choose is fixed by a seed.

use std::sync::Arc;

use tidehook::config::Config;
use tidehook::deliver::Deliver;
use tidehook::engine::{Chance, Engine, Parts};
use tidehook::model::{ManualClock, SeededIds};
use tidehook::observe::feed::Feed;
use tidehook::store::Store;
use tidehook::wake::local::Local;

/// The parts of an engine whose ids and jitter come from a seed, and which wakes nobody but itself.
pub fn parts(
    store: Arc<dyn Store>,
    deliver: Arc<dyn Deliver>,
    clock: &ManualClock,
    config: Arc<Config>,
    seed: u64,
) -> Parts {
    Parts {
        store,
        deliver,
        wake: Arc::new(Local::default()),
        clock: Arc::new(clock.clone()),
        ids: Arc::new(SeededIds::new(seed, clock)),
        chance: Chance::seeded(seed),
        config,
        feed: Feed::default(),
    }
}

/// An engine of such parts. It is not prepared yet.
pub fn engine(
    store: &Arc<dyn Store>,
    deliver: Arc<dyn Deliver>,
    clock: &ManualClock,
    config: Arc<Config>,
    seed: u64,
) -> Engine {
    Engine::new(parts(Arc::clone(store), deliver, clock, config, seed))
}
