//! tidehook turns events into HTTP actions, reliably.
//!
//! The floors of the house, from the top; an arrow may only point down (`tests/it/floors.rs`):
//!
//! - [`server`], [`http`], [`cli`]: how people and clouds reach it
//! - [`engine`]: accept · work · tick · operate; the only room that holds everything
//! - [`store`], [`deliver`], [`ingress`], [`wake`]: the outside world; these rooms do not see each other
//! - [`config`] → [`decide`] → [`model`]: no I/O, no clock, no chance
//! - [`observe`] stands beside the stairs: what happens, told as it happens

pub mod cli;
pub mod config;
pub mod decide;
pub mod deliver;
pub mod engine;
pub mod http;
pub mod ingress;
pub mod model;
pub mod observe;
pub mod server;
pub mod store;
pub mod wake;
