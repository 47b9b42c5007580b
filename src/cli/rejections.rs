//! `tidehook rejections`: lists refused requests, counted by source and reason.

use super::client::Client;
use super::{Done, Global, print};

pub(super) async fn run(global: &Global) -> Done {
    let answer = Client::connect(global).await?.get("/api/rejections").await?;
    match global.json {
        true => print::json(&answer),
        false => {
            let columns = [
                ("SOURCE", "source"),
                ("REASON", "reason"),
                ("COUNT", "count"),
                ("LAST", "last_at"),
            ];
            print::table(&answer["rejections"], &columns, "No requests were refused.");
        }
    }
    Ok(())
}
