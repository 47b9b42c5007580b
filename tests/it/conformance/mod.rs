//! One suite, every store: the suite is the specification of the verbs.

pub mod build;
mod hints;
mod intake;
mod lanes;
mod maintenance;
mod plans;
mod pull;
mod query;
mod runs;
mod statements;
mod texts;
mod work;

/// Makes a test per store of each named function.
macro_rules! on_every_store {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            use crate::support::stores::{fresh, Kind};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn memory() {
                super::$name(fresh(Kind::Memory).await.unwrap()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::$name(fresh(Kind::Sqlite).await.unwrap()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                if let Some(fresh) = fresh(Kind::Postgres).await {
                    super::$name(fresh).await;
                }
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mariadb() {
                if let Some(fresh) = fresh(Kind::Mariadb).await {
                    super::$name(fresh).await;
                }
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn pooled() {
                if let Some(fresh) = fresh(Kind::Pooled).await {
                    super::$name(fresh).await;
                }
            }
        }
    )*};
}
pub(crate) use on_every_store;
