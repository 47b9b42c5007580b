//! IAM database authentication: a password that is a signed request, good for a quarter of an hour. Connections that are open
//! stay open; new ones need a new password by then.
//!
//! As in <https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.Connecting.html>.

use std::borrow::Cow;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Pool, Postgres};

use crate::model::{AwsIdentity, Clock, SystemClock, Timestamp};

/// How long a password is good for, and after how long the next one is made.
const GOOD_FOR: Duration = Duration::from_secs(900);
const RENEW_AFTER: Duration = Duration::from_secs(600);

/// Who signs, for which database.
pub struct Tokens {
    options: PgConnectOptions,
    who: AwsIdentity,
    made_at: Mutex<Timestamp>,
}

impl Tokens {
    /// For a database, as somebody who may connect to it.
    pub fn new(options: PgConnectOptions, who: AwsIdentity) -> Self {
        Self { options, who, made_at: Mutex::new(Timestamp(0)) }
    }

    /// Gives a pool a new password for its next connections, if the present one grows old.
    pub fn renew(&self, pool: &Pool<Postgres>) {
        let now = SystemClock.now();
        let mut made_at = self.made_at.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(*made_at) < RENEW_AFTER && now >= *made_at {
            return;
        }
        let (host, port, user) = (self.options.get_host(), self.options.get_port(), self.options.get_username());
        match token(host, port, user, &self.who, now) {
            Ok(token) => {
                pool.set_connect_options(self.options.clone().password(&token));
                *made_at = now;
            }
            Err(error) => tracing::error!(error, "A password for the database cannot be made."),
        }
    }
}

/// The password: a presigned request without its scheme.
fn token(host: &str, port: u16, user: &str, who: &AwsIdentity, at: Timestamp) -> Result<String, String> {
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(GOOD_FOR);
    let mut url = url::Url::parse(&format!("https://{host}:{port}/")).map_err(|error| error.to_string())?;
    url.query_pairs_mut().append_pair("Action", "connect").append_pair("DBUser", user);
    let request = SignableRequest::new("GET", url.as_str(), std::iter::empty(), SignableBody::Bytes(&[]));
    let signed = who.sign("rds-db", at, settings, request.map_err(|error| error.to_string())?)?;
    let (_, pairs): (_, Vec<(&'static str, Cow<'static, str>)>) = signed.into_parts();
    for (name, value) in pairs {
        url.query_pairs_mut().append_pair(name, &value);
    }
    Ok(url.as_str().trim_start_matches("https://").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    /// What botocore 1.43 makes of the same at 2026-11-25T16:33:49Z.
    const MADE: &str = "1bca234dd3faa9d98cbed09f8dd8eb472faa58cfb2ac7c3c6a015604e38f2da2";

    #[test]
    fn a_password_is_the_one_that_another_signer_makes() {
        let who = AwsIdentity {
            region: "eu-west-1".to_owned(),
            key: "AKIDEXAMPLE".to_owned(),
            secret: Secret::new("plainly-fictional"),
            session: Some(Secret::new("session/token")),
        };
        let made = token("db.example.com", 5432, "ada", &who, Timestamp(1_795_624_429_000)).unwrap();
        assert!(made.starts_with("db.example.com:5432/?Action=connect&DBUser=ada&"), "{made}");
        assert!(made.contains("X-Amz-Date=20261125T163349Z") && made.contains("X-Amz-Expires=900"), "{made}");
        assert!(
            made.ends_with(&format!("X-Amz-Signature={MADE}")) || made.contains(&format!("X-Amz-Signature={MADE}&")),
            "{made}"
        );
    }
}
