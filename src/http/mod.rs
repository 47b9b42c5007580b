//! Third floor: how it is reached over HTTP. Translates; holds no SQL and no rules.
//!
//! - `router`: all routes in one list; [`around`]: what surrounds every request
//! - [`hooks`]: webhooks and events in; [`callback`]: answers to steps that wait; [`approve`]: a page for decisions; [`health`]: probes; `metrics`: figures; [`echo`]: a mirror for trying things out
//! - [`api`]: what is stored, one file per resource
//! - [`auth`], [`client`], [`limits`], [`body`], [`path`]: who may, from where, how much
//! - [`error`]: the one shape of every refusal

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

pub use router::{State, router};
