//! Owns the thread that reads the rows of coming steps while the device computes; never touches tensors.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use data_pipeline::dataset::DataError;
use data_pipeline::loader::{Loader, TokenBatch};

/// Micro-batches read ahead: enough to hide a page fault, few enough to be nothing in memory.
const DEPTH_MICRO_BATCHES: usize = 4;

/// A bounded queue of micro-batches, read in the order given.
pub struct Prefetch {
    queue: Option<Receiver<Result<TokenBatch, DataError>>>,
    thread: Option<JoinHandle<()>>,
    waited: Duration,
}

impl Prefetch {
    /// Starts reading `ranges` of global rows, one micro-batch a range.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        loader: Arc<Loader>,
        ranges: impl Iterator<Item = Range<u64>> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, queue) = sync_channel(DEPTH_MICRO_BATCHES);
        let thread = std::thread::Builder::new().name("prefetch".into()).spawn(move || {
            for range in ranges {
                let rows = loader.rows(range);
                let failed = rows.is_err();
                // A closed queue means that training has ended.
                if sender.send(rows).is_err() || failed {
                    return;
                }
            }
        })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), waited: Duration::ZERO })
    }

    /// The next micro-batch; `None` after the last one.
    pub fn next_batch(&mut self) -> Option<Result<TokenBatch, DataError>> {
        let start = Instant::now();
        let batch = self.queue.as_ref()?.recv().ok();
        self.waited += start.elapsed();
        batch
    }

    /// Time spent waiting for data since the last call.
    pub fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // The reader sends its errors through the queue; a panic there has already been reported by the hook.
            let _ = thread.join();
        }
    }
}
