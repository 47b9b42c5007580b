//! First floor: in. A raw request becomes an `Inbound` event, an answer to a handshake, or a refusal.
//!
//! - `provider`: what a signature scheme knows; [`providers`]: all of them, one file each
//! - [`raw`]: the request as it came; [`check`]: building blocks of signatures
//! - [`cloudevents`]: event types from CloudEvents
//! - `admit`: genuine or not, and what it is

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

/// What a configuration may say about providers.
pub fn known() -> crate::config::Known {
    crate::config::Known { providers: PROVIDERS.iter().map(|p| (p.name(), p.secret_check())).collect(), resolve: None }
}
