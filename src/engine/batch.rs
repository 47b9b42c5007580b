//! Callers hand in one item, a slice is committed, each gets its own answer.
//!
//! No slice waits for more items than are already there: the next one gathers while the last one commits.
//! A caller that hangs up cancels nothing; its item is committed with the others.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

use crate::observe::metrics;
use crate::store::{Each, Error, Result};

/// A slice is no longer than this.
const ITEMS_MAX: usize = 200;
/// So many items may wait; further callers wait to hand in.
const WAITING_MAX: usize = 10_000;

struct Item<I, T> {
    item: I,
    answer: oneshot::Sender<Result<T>>,
}

/// Where items are handed in.
pub struct Batch<I, T>(mpsc::Sender<Item<I, T>>);

impl<I: Send + 'static, T: Send + 'static> Batch<I, T> {
    /// Starts the tasks that commit slices, `writers` of them side by side. They end when this is dropped.
    /// `verb` names them in metrics.
    pub fn start<F, Fut>(writers: usize, verb: &'static str, commit: F) -> Self
    where
        F: Fn(Vec<I>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Each<T>> + Send + 'static,
    {
        let (hand_in, waiting) = mpsc::channel(WAITING_MAX);
        let (waiting, commit) = (Arc::new(Mutex::new(waiting)), Arc::new(commit));
        for _ in 0..writers.max(1) {
            tokio::spawn(write(Arc::clone(&waiting), verb, Arc::clone(&commit)));
        }
        Self(hand_in)
    }

    /// Hands in an item and waits for its answer.
    ///
    /// # Errors
    /// Those of the store; `Down` when the committing tasks have ended.
    pub async fn put(&self, item: I) -> Result<T> {
        let gone = || Error::Down("shutting down".to_owned());
        let (answer, answered) = oneshot::channel();
        self.0.send(Item { item, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

async fn write<I, T, F, Fut>(waiting: Arc<Mutex<mpsc::Receiver<Item<I, T>>>>, verb: &'static str, commit: Arc<F>)
where
    F: Fn(Vec<I>) -> Fut,
    Fut: Future<Output = Each<T>>,
{
    loop {
        let mut slice = Vec::new();
        // One writer gathers while the others commit.
        if waiting.lock().await.recv_many(&mut slice, ITEMS_MAX).await == 0 {
            return;
        }
        metrics::committed(verb, slice.len());
        let (items, answers): (Vec<I>, Vec<_>) = slice.into_iter().map(|i| (i.item, i.answer)).unzip();
        match commit(items).await {
            Ok(each) => {
                let mut each = each.into_iter();
                for answer in answers {
                    let result = each.next().unwrap_or_else(|| Err(Error::Corrupt("the store gave no answer".to_owned())));
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
        let batch = Arc::new(Batch::start(1, "test", move |items: Vec<u32>| {
            seen.lock().unwrap().push(items.len());
            let opens = Arc::clone(&opens);
            async move {
                opens.acquire().await.unwrap().forget();
                Ok(items.into_iter().map(|n| if n == 3 { Err(Error::LeaseLost) } else { Ok(n * 2) }).collect())
            }
        }));
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
        // Everyone has handed in once the queue holds all six.
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
}
