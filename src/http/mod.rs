//! The HTTP routes: they translate between requests and the engine, and hold no SQL and no rules.
//! Third floor.
//!
//! - `router`: all routes in one list
//! - [`around`]: middleware around every request
//! - [`hooks`]: where webhooks and events come in
//! - [`callback`]: answers to steps that wait for them
//! - [`approve`]: a page for decisions of people
//! - [`api`]: the management API, one file per resource
//! - [`health`], `metrics`: probes and figures
//! - [`echo`]: a mirror for trying things out
//! - [`auth`], [`client`], [`limits`]: who may send, from where, and how often
//! - [`body`], [`path`]: how requests are read
//! - [`error`]: the JSON of every refusal

pub mod api;
pub mod approve;
pub mod around;
pub mod auth;
pub mod body;
pub mod callback;
pub mod client;
pub mod echo;
pub mod error;
pub mod health;
pub mod hooks;
pub mod limits;
pub mod metrics;
pub mod path;
pub mod router;

pub use router::{State, probes_only, router};
