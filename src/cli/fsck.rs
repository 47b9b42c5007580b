//! `tidehook fsck`: checks that stored runs are consistent, and lists deliveries that nothing in
//! the configuration serves.

use anyhow::anyhow;

use super::client::Client;
use super::{Done, Global, print};

pub(super) async fn run(global: &Global) -> Done {
    let answer = Client::connect(global).await?.get("/api/fsck").await?;
    let faults = answer["faults"].as_array().ok_or_else(|| {
        anyhow!(
            "the response of the server has \
        no list of faults; check that server and CLI have the same version"
        )
    })?;
    match global.json {
        true => print::json(&answer),
        false => {
            for fault in faults {
                let text = |key: &str| fault[key].as_str().unwrap_or("-").to_owned();
                print::line(&format!(
                    "run_{}: {}",
                    text("run_id"),
                    print::one_line(&text("fault"))
                ));
            }
            for lane in answer["parked"].as_array().map_or(&[][..], Vec::as_slice) {
                print::line(&format!(
                    "{}: {} open jobs, {}",
                    print::text(&lane["lane"]),
                    lane["jobs"],
                    print::text(&lane["why"])
                ));
            }
            print::note(&format!("{} runs checked, {} faults found", answer["runs"], faults.len()));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(anyhow!("fsck found inconsistent runs").into()) }
}
