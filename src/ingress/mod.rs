//! First floor: incoming requests. Each becomes an `Inbound` event, an answer to a handshake, or a
//! refusal.
//!
//! - `provider`: what a signature scheme can do; [`providers`]: all schemes, one file each
//! - [`raw`]: the request as received; [`check`]: building blocks of signatures
//! - [`cloudevents`]: event types from CloudEvents
//! - `admit`: whether a request is genuine, and what it is

pub mod admit;
pub mod check;
pub mod cloudevents;
pub mod provider;
pub mod providers;
pub mod raw;

pub use admit::{AdmitError, Admitted, admit, admit_address, again, call, check_schema};
pub use provider::{Challenge, Provider, Reason, Scheme};
pub use providers::{PROVIDERS, provider};
pub use raw::Raw;

/// The signature schemes, for checking a configuration.
pub fn known() -> crate::config::External {
    crate::config::External {
        providers: PROVIDERS.iter().map(|p| (p.name(), p.secret_check())).collect(),
        resolve: None,
    }
}
