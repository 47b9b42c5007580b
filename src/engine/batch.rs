//! Group commit: concurrent callers each submit one item, the items that are waiting are committed
//! together, and each caller gets its own answer.
//!
//! Normally a batch never waits for more items: it takes those that are there, and the next one
//! gathers while it commits. Only items whose callers say so wait a moment for others. A caller
//! that hangs up cancels nothing; its item is committed with the others.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::observe::metrics;
use crate::store::{Each, Error, Result};

/// The most items that one batch commits.
const ITEMS_MAX: usize = 200;
/// Once the items of a batch have this many bytes, no further item is added. The statement holds a
/// second copy of all of them.
const BYTES_MAX: usize = 2 << 20;
/// How many submitted items may wait. Further callers wait before they can submit.
const WAITING_MAX: usize = 10_000;
/// A batch of items that may wait begins this long after the batch before it. At 300 items a second
/// three share a commit, and an item that comes alone does not wait at all.
const PAUSE: Duration = Duration::from_millis(10);

struct Item<I, T> {
    item: I,
    /// Nobody needs the commit at once, so it may be put off until others share it.
    may_wait: bool,
    answer: oneshot::Sender<Result<T>>,
}

/// What the committing tasks share: the submitted items, in the order they came.
struct Queue<I, T> {
    items: mpsc::Receiver<Item<I, T>>,
    /// When the last batch was taken.
    began_at: Option<Instant>,
}

/// Commits the items of many callers in batches.
pub struct Batches<I, T> {
    items: mpsc::Sender<Item<I, T>>,
    /// Ends the pause before a batch, because an item came that may not wait.
    hurry: Arc<Notify>,
}

impl<I: Send + 'static, T: Send + 'static> Batches<I, T> {
    /// Starts `writers` tasks that commit batches in parallel. They end when this is dropped.
    /// `verb` names them in metrics; `weight` returns how many bytes an item has.
    pub fn start<F, Fut>(
        writers: usize,
        verb: &'static str,
        weight: fn(&I) -> usize,
        commit: F,
    ) -> Self
    where
        F: Fn(Vec<I>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Each<T>> + Send + 'static,
    {
        let (items, waiting) = mpsc::channel(WAITING_MAX);
        let queue = Arc::new(Mutex::new(Queue { items: waiting, began_at: None }));
        let (hurry, commit) = (Arc::new(Notify::new()), Arc::new(commit));
        for _ in 0..writers.max(1) {
            let hurry = Arc::clone(&hurry);
            tokio::spawn(write(Arc::clone(&queue), hurry, verb, weight, Arc::clone(&commit)));
        }
        Self { items, hurry }
    }

    /// Submits an item and waits until its batch is committed.
    ///
    /// # Errors
    /// Those of the store; `Down` when the committing tasks have ended.
    pub async fn put(&self, item: I) -> Result<T> {
        self.submit(item, false).await
    }

    /// Submits an item that nobody waits for, and waits until its batch is committed. The batch may
    /// be put off by a few milliseconds, so that several items share a commit.
    ///
    /// # Errors
    /// As [`Batches::put`].
    pub async fn put_unhurried(&self, item: I) -> Result<T> {
        self.submit(item, true).await
    }

    async fn submit(&self, item: I, may_wait: bool) -> Result<T> {
        let gone = || Error::down("shutting down".to_owned());
        let (answer, answered) = oneshot::channel();
        self.items.send(Item { item, may_wait, answer }).await.map_err(|_| gone())?;
        if !may_wait {
            self.hurry.notify_one();
        }
        answered.await.map_err(|_| gone())?
    }
}

/// Takes the items of the next batch: at least one, then those that are already waiting, within the
/// limits. Empty once the queue is closed.
async fn gathered<I, T>(
    queue: &Mutex<Queue<I, T>>,
    hurry: &Notify,
    weight: fn(&I) -> usize,
) -> Vec<Item<I, T>> {
    // One writer gathers while the others commit.
    let mut queue = queue.lock().await;
    let mut batch = Vec::new();
    let mut bytes = 0;
    let mut next = queue.items.recv().await;
    if let (Some(Item { may_wait: true, .. }), Some(began_at)) = (&next, queue.began_at) {
        tokio::select! {
            () = hurry.notified() => {}
            () = sleep_until(began_at + PAUSE) => {}
        }
    }
    queue.began_at = Some(Instant::now());
    // What hurried until now is in this batch, and must not shorten the pause before the next one.
    let _ = hurry.notified().now_or_never();
    while let Some(item) = next {
        bytes += weight(&item.item);
        batch.push(item);
        next = if batch.len() < ITEMS_MAX && bytes < BYTES_MAX {
            queue.items.try_recv().ok()
        } else {
            None
        };
    }
    batch
}

async fn write<I, T, F, Fut>(
    queue: Arc<Mutex<Queue<I, T>>>,
    hurry: Arc<Notify>,
    verb: &'static str,
    weight: fn(&I) -> usize,
    commit: Arc<F>,
) where
    F: Fn(Vec<I>) -> Fut,
    Fut: Future<Output = Each<T>>,
{
    loop {
        let batch = gathered(&queue, &hurry, weight).await;
        if batch.is_empty() {
            return;
        }
        metrics::committed(verb, batch.len());
        let (items, answers): (Vec<I>, Vec<_>) =
            batch.into_iter().map(|i| (i.item, i.answer)).unzip();
        match commit(items).await {
            Ok(each) => {
                let mut each = each.into_iter();
                for answer in answers {
                    let result = each.next().unwrap_or_else(|| {
                        Err(Error::permanent("the store returned too few results".to_owned()))
                    });
                    // A caller that hung up needs no answer.
                    let _ = answer.send(result);
                }
            }
            Err(error) => answers.into_iter().for_each(|answer| {
                let _ = answer.send(Err(error.clone()));
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex as StdMutex;
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn what_gathers_during_a_commit_is_one_batch() {
        let (sizes, gate) = (Arc::new(StdMutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
        let (seen, opens) = (Arc::clone(&sizes), Arc::clone(&gate));
        let batch = Arc::new(Batches::start(
            1,
            "test",
            |_| 0,
            move |items: Vec<u32>| {
                seen.lock().unwrap().push(items.len());
                let opens = Arc::clone(&opens);
                async move {
                    opens.acquire().await.unwrap().forget();
                    Ok(items
                        .into_iter()
                        .map(|n| if n == 3 { Err(Error::LeaseLost) } else { Ok(n * 2) })
                        .collect())
                }
            },
        ));
        let put = |n| {
            let batch = Arc::clone(&batch);
            tokio::spawn(async move { batch.put(n).await })
        };
        let first = put(0);
        while sizes.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let rest: Vec<_> = (1..=5).map(put).collect();
        let hung_up = put(6);
        // Everyone has submitted once the queue holds all six.
        while batch.items.capacity() > WAITING_MAX - 6 {
            tokio::task::yield_now().await;
        }
        hung_up.abort();
        gate.add_permits(2);
        assert_eq!(first.await.unwrap(), Ok(0));
        for (at, answer) in rest.into_iter().enumerate() {
            let n = u32::try_from(at).unwrap() + 1;
            let expected = if n == 3 { Err(Error::LeaseLost) } else { Ok(n * 2) };
            assert_eq!(answer.await.unwrap(), expected);
        }
        assert_eq!(*sizes.lock().unwrap(), [1, 6]);
    }

    #[tokio::test(start_paused = true)]
    async fn items_that_may_wait_share_a_commit_unless_one_may_not() {
        let (began, sizes) = (Instant::now(), Arc::new(StdMutex::new(Vec::new())));
        let seen = Arc::clone(&sizes);
        let batches = Batches::start(
            1,
            "test",
            |_| 0,
            move |items: Vec<u32>| {
                seen.lock().unwrap().push((items.len(), began.elapsed().as_millis()));
                async move { Ok(items.into_iter().map(Ok).collect()) }
            },
        );
        let after = async |millis, n| {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            batches.put_unhurried(n).await.unwrap()
        };
        // The first one comes alone, three share the next commit, and the last comes alone again.
        tokio::join!(after(0, 1), after(2, 2), after(4, 3), after(9, 4), after(30, 5));
        assert_eq!(*sizes.lock().unwrap(), [(1, 0), (3, 10), (1, 30)]);
        // One that may not wait takes those along that may.
        tokio::join!(after(1, 6), async {
            tokio::time::sleep(Duration::from_millis(3)).await;
            batches.put(7).await.unwrap()
        });
        assert_eq!(sizes.lock().unwrap()[3..], [(2, 33)]);
    }

    #[tokio::test]
    async fn large_items_share_no_batch_beyond_its_bytes() {
        let (hand_in, waiting) = mpsc::channel(10);
        let answers: Vec<_> = [1_500_000, 1_000_000, 10, 10, 3_000_000, 1]
            .into_iter()
            .map(|bytes: usize| {
                let (answer, answered) = oneshot::channel::<Result<()>>();
                hand_in.try_send(Item { item: bytes, may_wait: false, answer }).unwrap();
                answered
            })
            .collect();
        drop(hand_in);
        let queue = Mutex::new(Queue { items: waiting, began_at: None });
        let mut sizes = Vec::new();
        loop {
            let batch = gathered(&queue, &Notify::new(), |bytes| *bytes).await;
            if batch.is_empty() {
                break;
            }
            sizes.push(batch.len());
        }
        assert_eq!((sizes, answers.len()), (vec![2, 3, 1], 6));
    }
}
