//! IAM database authentication: the password is a signed request that is valid for 15 minutes. Open
//! connections stay open; new ones need a password that is still valid.
//!
//! As in
//! <https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.Connecting.html>.

use std::borrow::Cow;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Pool, Postgres};
use tokio::sync::Mutex;

use crate::model::{AwsIdentity, Clock, SystemClock, Timestamp, no_credentials};

/// How long a password is valid, at most.
const GOOD_FOR: Duration = Duration::from_secs(900);
/// A new password is made after this time, or earlier if the credentials that sign it expire
/// earlier.
const RENEW_AFTER: Duration = Duration::from_secs(600);
/// How long before the credentials expire the next password is made, since connecting takes time.
const MARGIN: Duration = Duration::from_secs(60);
/// How long to wait after a failure before trying again.
const AGAIN: Duration = Duration::from_secs(1);

/// Makes the passwords for one database with one AWS identity.
pub struct Tokens {
    options: PgConnectOptions,
    who: AwsIdentity,
    /// When to make the next password, in milliseconds since 1970.
    due_at: AtomicI64,
    /// Until when the present password is valid. Locked while a new one is made.
    good_until: Mutex<Timestamp>,
}

impl Tokens {
    /// For this database, with an identity that may connect to it.
    pub fn new(options: PgConnectOptions, who: AwsIdentity) -> Self {
        Self {
            options,
            who,
            due_at: AtomicI64::new(i64::MIN),
            good_until: Mutex::new(Timestamp(0)),
        }
    }

    /// Gives a pool a new password for its next connections, if the present one is due for renewal.
    ///
    /// # Errors
    /// A sentence: there is no valid password, and none can be made now.
    pub async fn renew(&self, pool: &Pool<Postgres>) -> Result<(), String> {
        if SystemClock.now().0 < self.due_at.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut good_until = self.good_until.lock().await;
        let now = SystemClock.now();
        if now.0 < self.due_at.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.made(now).await {
            Ok((token, until)) => {
                pool.set_connect_options(self.options.clone().password(&token));
                let renew_at = now.plus(RENEW_AFTER).min(until.minus(MARGIN)).max(now.plus(AGAIN));
                self.due_at.store(renew_at.0, Ordering::Relaxed);
                *good_until = until;
                Ok(())
            }
            Err(why) if now < *good_until => {
                tracing::warn!(
                    why,
                    "A new database password (IAM token) cannot be created yet. The current one is \
                     still valid."
                );
                self.due_at.store(now.plus(AGAIN).0, Ordering::Relaxed);
                Ok(())
            }
            Err(why) => Err(format!("a database password (IAM token) cannot be created: {why}")),
        }
    }

    /// A new password and until when it is valid: no longer than the credentials that sign it.
    async fn made(&self, now: Timestamp) -> Result<(String, Timestamp), String> {
        let credentials =
            self.who.credentials.provide_credentials().await.map_err(|why| no_credentials(&why))?;
        let (host, port, user) =
            (self.options.get_host(), self.options.get_port(), self.options.get_username());
        let token = token(host, port, user, &self.who.region, &credentials, now)?;
        let ends =
            credentials.expiry().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let ends = ends.and_then(|since| i64::try_from(since.as_millis()).ok()).map(Timestamp);
        let until = now.plus(GOOD_FOR);
        Ok((token, ends.map_or(until, |ends| until.min(ends))))
    }
}

/// The password itself: a presigned request without its scheme.
fn token(
    host: &str,
    port: u16,
    user: &str,
    region: &str,
    who: &Credentials,
    at: Timestamp,
) -> Result<String, String> {
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(GOOD_FOR);
    let mut url =
        url::Url::parse(&format!("https://{host}:{port}/")).map_err(|error| error.to_string())?;
    url.query_pairs_mut().append_pair("Action", "connect").append_pair("DBUser", user);
    let request =
        SignableRequest::new("GET", url.as_str(), std::iter::empty(), SignableBody::Bytes(&[]));
    let request = request.map_err(|error| error.to_string())?;
    let identity = who.clone().into();
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or(0));
    let parameters =
        v4::SigningParams::builder().identity(&identity).region(region).name("rds-db").time(time);
    let parameters =
        parameters.settings(settings).build().map_err(|error| error.to_string())?.into();
    let (signed, _) = sign(request, &parameters).map_err(|error| error.to_string())?.into_parts();
    let (_, pairs): (_, Vec<(&'static str, Cow<'static, str>)>) = signed.into_parts();
    for (name, value) in pairs {
        url.query_pairs_mut().append_pair(name, &value);
    }
    Ok(url.as_str().trim_start_matches("https://").to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::{SharedCredentialsProvider, future};

    use super::*;

    /// What botocore 1.43 makes of the same at 2026-11-25T16:33:49Z.
    const MADE: &str = "1bca234dd3faa9d98cbed09f8dd8eb472faa58cfb2ac7c3c6a015604e38f2da2";

    #[test]
    fn a_password_is_the_one_that_another_signer_makes() {
        let session = Some("session/token".to_owned());
        let who = Credentials::new("AKIDEXAMPLE", "plainly-fictional", session, None, "test");
        let made =
            token("db.example.com", 5432, "ada", "eu-west-1", &who, Timestamp(1_795_624_429_000))
                .unwrap();
        assert!(made.starts_with("db.example.com:5432/?Action=connect&DBUser=ada&"), "{made}");
        assert!(
            made.contains("X-Amz-Date=20261125T163349Z") && made.contains("X-Amz-Expires=900"),
            "{made}"
        );
        assert!(
            made.ends_with(&format!("X-Amz-Signature={MADE}"))
                || made.contains(&format!("X-Amz-Signature={MADE}&")),
            "{made}"
        );
    }

    /// Credentials of a role that end soon, except where it gives none.
    #[derive(Debug)]
    struct Role {
        asked: Arc<AtomicUsize>,
        good_for: Duration,
        gives: usize,
    }

    impl ProvideCredentials for Role {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let nth = self.asked.fetch_add(1, Ordering::SeqCst);
            let now = Duration::from_millis(u64::try_from(SystemClock.now().0).unwrap());
            let ends = SystemTime::UNIX_EPOCH + now + self.good_for;
            future::ProvideCredentials::ready(match nth < self.gives {
                true => Ok(Credentials::new(
                    "AKIDEXAMPLE",
                    "plainly-fictional",
                    None,
                    Some(ends),
                    "test",
                )),
                false => Err(CredentialsError::not_loaded("nobody is here")),
            })
        }
    }

    fn tokens(good_for: Duration, gives: usize) -> (Tokens, Arc<AtomicUsize>, Pool<Postgres>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let credentials =
            SharedCredentialsProvider::new(Role { asked: Arc::clone(&asked), good_for, gives });
        let options = PgConnectOptions::new_without_pgpass().host("db.example.com").username("ada");
        let pool = sqlx::postgres::PgPoolOptions::new().connect_lazy_with(options.clone());
        (
            Tokens::new(options, AwsIdentity { region: "eu-west-1".to_owned(), credentials }),
            asked,
            pool,
        )
    }

    #[tokio::test]
    async fn a_password_is_made_once_and_no_later_than_its_credentials_end_again() {
        let (lasting, asked, pool) = tokens(Duration::from_secs(3600), 9);
        lasting.renew(&pool).await.unwrap();
        lasting.renew(&pool).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let (short, _, pool) = tokens(Duration::from_secs(90), 9);
        short.renew(&pool).await.unwrap();
        let due_in = Duration::from_millis(
            u64::try_from(short.due_at.load(Ordering::SeqCst) - SystemClock.now().0).unwrap(),
        );
        assert!(due_in <= Duration::from_secs(30), "{due_in:?}");
    }

    #[tokio::test]
    async fn without_credentials_there_is_a_sentence_and_the_present_password_serves_on() {
        let (never, _, pool) = tokens(Duration::ZERO, 0);
        let why = never.renew(&pool).await.unwrap_err();
        assert!(
            why.contains("no AWS credentials were found")
                && why.contains("give this process a role"),
            "{why}"
        );
        let (once, asked, pool) = tokens(Duration::from_secs(3600), 1);
        once.renew(&pool).await.unwrap();
        once.due_at.store(0, Ordering::SeqCst);
        once.renew(&pool).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }
}
