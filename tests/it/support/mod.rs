//! What tests share.

pub mod cluster;
pub mod database;
pub mod endpoint;
pub mod engines;
pub mod functions;
pub mod mariadb;
pub mod process;
pub mod producer;
pub mod proxy;
pub mod stores;
pub mod world;

use std::path::{Path, PathBuf};

/// A folder of shared material beside the repository. Not everyone has it: a test that wants it
/// says so and passes without.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: there is no ../shared/{name}");
    None
}
