//! Group commit: concurrent callers each submit one item, the items that are waiting are committed
//! together, and each caller gets its own answer.
//!
//! A batch never waits for more items: it takes those that are there, and the next one gathers
//! while it commits. A caller that hangs up cancels nothing; its item is committed with the others.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

use crate::observe::metrics;
use crate::store::{Each, Error, Result};

/// The most items that one batch commits.
const ITEMS_MAX: usize = 200;
/// Once the items of a batch have this many bytes, no further item is added. The statement holds a
/// second copy of all of them.
const BYTES_MAX: usize = 2 << 20;
/// How many submitted items may wait. Further callers wait before they can submit.
const WAITING_MAX: usize = 10_000;

struct Item<I, T> {
    item: I,
    answer: oneshot::Sender<Result<T>>,
}

/// The queue to which callers submit items for the next commit.
pub struct Batch<I, T>(mpsc::Sender<Item<I, T>>);

impl<I: Send + 'static, T: Send + 'static> Batch<I, T> {
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
        let (hand_in, waiting) = mpsc::channel(WAITING_MAX);
        let (waiting, commit) = (Arc::new(Mutex::new(waiting)), Arc::new(commit));
        for _ in 0..writers.max(1) {
            tokio::spawn(write(Arc::clone(&waiting), verb, weight, Arc::clone(&commit)));
        }
        Self(hand_in)
    }

    /// Submits an item and waits until its batch is committed.
    ///
    /// # Errors
    /// Those of the store; `Down` when the committing tasks have ended.
    pub async fn put(&self, item: I) -> Result<T> {
        let gone = || Error::down("shutting down".to_owned());
        let (answer, answered) = oneshot::channel();
        self.0.send(Item { item, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// Takes the items of the next batch: at least one, then those that are already waiting, within the
/// limits. Empty once the queue is closed.
async fn gathered<I, T>(
    waiting: &Mutex<mpsc::Receiver<Item<I, T>>>,
    weight: fn(&I) -> usize,
) -> Vec<Item<I, T>> {
    // One writer gathers while the others commit.
    let mut waiting = waiting.lock().await;
    let mut slice = Vec::new();
    let mut bytes = 0;
    let mut next = waiting.recv().await;
    while let Some(item) = next {
        bytes += weight(&item.item);
        slice.push(item);
        next = if slice.len() < ITEMS_MAX && bytes < BYTES_MAX {
            waiting.try_recv().ok()
        } else {
            None
        };
    }
    slice
}

async fn write<I, T, F, Fut>(
    waiting: Arc<Mutex<mpsc::Receiver<Item<I, T>>>>,
    verb: &'static str,
    weight: fn(&I) -> usize,
    commit: Arc<F>,
) where
    F: Fn(Vec<I>) -> Fut,
    Fut: Future<Output = Each<T>>,
{
    loop {
        let slice = gathered(&waiting, weight).await;
        if slice.is_empty() {
            return;
        }
        metrics::committed(verb, slice.len());
        let (items, answers): (Vec<I>, Vec<_>) =
            slice.into_iter().map(|i| (i.item, i.answer)).unzip();
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
    async fn what_gathers_during_a_commit_is_one_slice() {
        let (sizes, gate) = (Arc::new(StdMutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
        let (seen, opens) = (Arc::clone(&sizes), Arc::clone(&gate));
        let batch = Arc::new(Batch::start(
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
        while batch.0.capacity() > WAITING_MAX - 6 {
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

    #[tokio::test]
    async fn large_items_share_no_slice_beyond_its_bytes() {
        let (hand_in, waiting) = mpsc::channel(10);
        let answers: Vec<_> = [1_500_000, 1_000_000, 10, 10, 3_000_000, 1]
            .into_iter()
            .map(|bytes: usize| {
                let (answer, answered) = oneshot::channel::<Result<()>>();
                hand_in.try_send(Item { item: bytes, answer }).unwrap();
                answered
            })
            .collect();
        drop(hand_in);
        let waiting = Mutex::new(waiting);
        let mut sizes = Vec::new();
        loop {
            let slice = gathered(&waiting, |bytes| *bytes).await;
            if slice.is_empty() {
                break;
            }
            sizes.push(slice.len());
        }
        assert_eq!((sizes, answers.len()), (vec![2, 3, 1], 6));
    }
}
