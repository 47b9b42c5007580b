//! Group commit: concurrent callers each submit one item, the items that are waiting are committed
//! together, and each caller gets its own answer.
//!
//! Normally a batch never waits for more items: it takes those that are there, and the next one
//! gathers while it commits. Two kinds wait a moment: items whose callers say so, and, under load,
//! a batch that would run beside another commit although it has few items. A caller that hangs up
//! cancels nothing; its item is committed with the others.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
/// A batch of this many items or more means load: the next one gathers as long as another commits.
const LOAD: usize = 4;
/// With this many waiting items, a batch begins although another one is being committed. A call
/// costs the database as much as several items, so that fewer are better left to gather.
const WORTH_A_CALL: usize = 32;
/// How long a batch gathers at most beside a commit that does not end.
const BESIDE_MAX: Duration = Duration::from_millis(10);

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
    /// How many items it had.
    last: usize,
}

/// The commits that are under way.
#[derive(Default)]
struct Commits {
    count: AtomicUsize,
    /// A commit has ended, or so many items wait that another one is worth it.
    news: Notify,
}

/// A batch that is being committed. It counts until it is dropped, also when the commit panics.
struct Running(Arc<Commits>);

impl Running {
    fn begin(commits: &Arc<Commits>) -> Self {
        commits.count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(commits))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.news.notify_one();
    }
}

/// Commits the items of many callers in batches.
pub struct Batches<I, T> {
    items: mpsc::Sender<Item<I, T>>,
    /// Ends the pause before a batch, because an item came that may not wait.
    hurry: Arc<Notify>,
    commits: Arc<Commits>,
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
        let queue = Arc::new(Mutex::new(Queue { items: waiting, began_at: None, last: 0 }));
        let (hurry, commit) = (Arc::new(Notify::new()), Arc::new(commit));
        let commits = Arc::new(Commits::default());
        for _ in 0..writers.max(1) {
            let gather = Gather {
                queue: Arc::clone(&queue),
                hurry: Arc::clone(&hurry),
                commits: Arc::clone(&commits),
                weight,
            };
            tokio::spawn(write(gather, verb, Arc::clone(&commit)));
        }
        Self { items, hurry, commits }
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
        if WAITING_MAX.saturating_sub(self.items.capacity()) >= WORTH_A_CALL {
            self.commits.news.notify_one();
        }
        answered.await.map_err(|_| gone())?
    }
}

/// How a writer comes by its next batch.
struct Gather<I, T> {
    queue: Arc<Mutex<Queue<I, T>>>,
    hurry: Arc<Notify>,
    commits: Arc<Commits>,
    /// How many bytes an item has.
    weight: fn(&I) -> usize,
}

impl<I, T> Gather<I, T> {
    /// Takes the items of the next batch: at least one, then those that are already waiting, within
    /// the limits. `None` once the queue is closed.
    async fn next(&self) -> Option<(Vec<Item<I, T>>, Running)> {
        // One writer gathers while the others commit.
        let mut queue = self.queue.lock().await;
        let first = queue.items.recv().await?;
        if let (true, Some(began_at)) = (first.may_wait, queue.began_at) {
            tokio::select! {
                () = self.hurry.notified() => {}
                () = sleep_until(began_at + PAUSE) => {}
            }
        }
        if queue.last >= LOAD {
            let until = Instant::now() + BESIDE_MAX;
            let is_few = || queue.items.len() + 1 < WORTH_A_CALL;
            while self.commits.count.load(Ordering::Acquire) > 0 && is_few() {
                tokio::select! {
                    () = self.commits.news.notified() => {}
                    () = sleep_until(until) => break,
                }
            }
        }
        queue.began_at = Some(Instant::now());
        // What hurried until now is in this batch, and must not shorten the pause before the next
        // one.
        let _ = self.hurry.notified().now_or_never();
        let (mut batch, mut bytes, mut next) = (Vec::new(), 0, Some(first));
        while let Some(item) = next {
            bytes += (self.weight)(&item.item);
            batch.push(item);
            next = if batch.len() < ITEMS_MAX && bytes < BYTES_MAX {
                queue.items.try_recv().ok()
            } else {
                None
            };
        }
        queue.last = batch.len();
        Some((batch, Running::begin(&self.commits)))
    }
}

async fn write<I, T, F, Fut>(gather: Gather<I, T>, verb: &'static str, commit: Arc<F>)
where
    F: Fn(Vec<I>) -> Fut,
    Fut: Future<Output = Each<T>>,
{
    while let Some((batch, running)) = gather.next().await {
        metrics::committed(verb, batch.len());
        let (items, answers): (Vec<I>, Vec<_>) =
            batch.into_iter().map(|i| (i.item, i.answer)).unzip();
        let committed = commit(items).await;
        drop(running);
        match committed {
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

    /// Two writers whose first commit takes so long, under load, and so many items that come a
    /// millisecond later: when the batch with these begins.
    async fn second_batch_begins_after(first_takes: u64, items: u32) -> u128 {
        let (began, seen) = (Instant::now(), Arc::new(StdMutex::new(Vec::new())));
        let of_commits = Arc::clone(&seen);
        let batches = Batches::start(
            2,
            "test",
            |_| 0,
            move |items: Vec<u32>| {
                of_commits.lock().unwrap().push(began.elapsed().as_millis());
                async move {
                    tokio::time::sleep(Duration::from_millis(first_takes)).await;
                    Ok(items.into_iter().map(Ok).collect())
                }
            },
        );
        let load = futures::future::join_all((0..5).map(|n| batches.put(n)));
        let more = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            futures::future::join_all((0..items).map(|n| batches.put(n))).await
        };
        tokio::join!(load, more);
        seen.lock().unwrap()[1]
    }

    #[tokio::test(start_paused = true)]
    async fn under_load_few_items_gather_while_another_commit_runs() {
        assert_eq!(second_batch_begins_after(6, 3).await, 6, "when that one ends");
        assert_eq!(second_batch_begins_after(100, 3).await, 11, "but not for long");
        assert_eq!(second_batch_begins_after(100, 40).await, 1, "enough for a call of their own");
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
        let gather = Gather {
            queue: Arc::new(Mutex::new(Queue { items: waiting, began_at: None, last: 0 })),
            hurry: Arc::default(),
            commits: Arc::default(),
            weight: |bytes| *bytes,
        };
        let mut sizes = Vec::new();
        while let Some((batch, _)) = gather.next().await {
            sizes.push(batch.len());
        }
        assert_eq!((sizes, answers.len()), (vec![2, 3, 1], 6));
    }
}
