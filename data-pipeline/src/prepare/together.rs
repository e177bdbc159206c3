//! Owns preparing one dataset with several processes: which part is whose, and who does the rest; never reads a row
//! itself.

use std::path::PathBuf;
use std::time::Duration;

use super::error::PrepareError;
use super::event::{PrepareEvent, Stage};
use super::existing;
use super::ingest::Reader;
use super::parts;
use super::queue::{Claim, Queue, pause};
use super::work::{Holding, WorkDir};
use super::{Prepared, Run, Worker, already};
use crate::spool::PartState;

/// Time between two looks at the tasks of others.
const LOOK: Duration = Duration::from_millis(250);
/// The task after all parts.
const REST: &str = "rest";

/// Works on parts until none is left, then on the rest, or waits for who does.
pub(super) fn run(run: &Run<'_>, worker: &Worker) -> Result<Prepared, PrepareError> {
    let key = existing::documents_key(run.config, run.files)?;
    let total_bytes = run.files.iter().map(|file| file.bytes).sum();
    (run.observe)(&PrepareEvent::StageStarted { stage: Stage::Read, total_bytes });
    let mut reading = true;
    loop {
        if existing::is_prepared(run.config, (run.given, run.chats), run.files)? {
            return already(&run.config.output_dir);
        }
        // Between these two another worker may have published; then this folder is new and empty, and goes again.
        let work = WorkDir::open(&run.config.output_dir, Holding::Together)?;
        let dir = work.at(parts::folder(&key));
        let queue = Queue::open(&dir, worker.lease_time).map_err(PrepareError::io(&dir, "created"))?;
        let outcome = Team { run, work: &work, key: &key, dir, queue }.work(&mut reading);
        match outcome {
            Ok(Some(prepared)) => return run.publish(work, prepared),
            // Whoever has published removes the folder under the feet of those who wait; one that came later has made
            // it anew.
            Ok(None) | Err(_) if existing::is_prepared(run.config, (run.given, run.chats), run.files)? => {
                work.discard()
            }
            Ok(None) => {}
            Err(error) => return Err(error),
        }
    }
}

struct Team<'a> {
    run: &'a Run<'a>,
    work: &'a WorkDir,
    key: &'a str,
    /// Folder of the parts.
    dir: PathBuf,
    queue: Queue,
}

impl Team<'_> {
    /// The dataset, if this process made it; `None` if another did.
    fn work(
        &self,
        reading: &mut bool,
    ) -> Result<Option<(crate::manifest::Manifest, crate::stats::Stats)>, PrepareError> {
        let Run { config, files, curation, observe, stop, .. } = *self.run;
        let reader = Reader::new(config, files, curation, self.key, observe, stop)?;
        let plan = parts::plan(files, config.limits.checkpoint_bytes);
        loop {
            if self.published()? {
                return Ok(None);
            }
            let (mut missing, mut progress) = (false, false);
            for (number, range) in plan.iter().enumerate() {
                let name = parts::name(number);
                if self.dir.join(&name).exists() {
                    continue;
                }
                missing = true;
                progress |= self.part(&name, range.clone(), &reader)?;
            }
            if !missing {
                if std::mem::take(reading) {
                    observe(&PrepareEvent::StageFinished { stage: Stage::Read, reused: false });
                }
                if let Some(prepared) = self.rest(plan.len())? {
                    return Ok(Some(prepared));
                }
            }
            if !progress && !pause(LOOK, stop) {
                return Err(PrepareError::Interrupted { stage: Stage::Read.name() });
            }
        }
    }

    fn published(&self) -> Result<bool, PrepareError> {
        if !self.run.config.output_dir.exists() {
            return Ok(false);
        }
        existing::is_prepared(self.run.config, (self.run.given, self.run.chats), self.run.files)
    }

    /// Reads a part if it is free; whether it is done now.
    fn part(&self, name: &str, range: std::ops::Range<usize>, reader: &Reader<'_>) -> Result<bool, PrepareError> {
        let failed = || PrepareError::io(&self.dir, "written");
        let Claim::Ours(lease) = self.queue.claim(name).map_err(failed())? else { return Ok(false) };
        let finished = self.dir.join(name);
        if finished.exists() {
            lease.done();
            return Ok(true);
        }
        let own = self.queue.inherit(name, &lease).map_err(failed())?;
        match reader.part(range, &own) {
            Ok(_) => {}
            Err(error) if error.is_passing() && lease.is_lost() => return Ok(false),
            Err(error) => return Err(error),
        }
        match std::fs::rename(&own, &finished) {
            Ok(()) => lease.done(),
            // Another process thought this one dead and was faster; its bytes are the same.
            Err(_) if finished.exists() => _ = std::fs::remove_dir_all(&own),
            Err(_) if lease.is_lost() => return Ok(false),
            Err(error) => return Err(failed()(error)),
        }
        Ok(true)
    }

    /// Does what comes after reading, if nobody else does.
    fn rest(&self, count: usize) -> Result<Option<(crate::manifest::Manifest, crate::stats::Stats)>, PrepareError> {
        let failed = || PrepareError::io(&self.dir, "written");
        let Claim::Ours(lease) = self.queue.claim(REST).map_err(failed())? else { return Ok(None) };
        if self.published()? {
            return Ok(None);
        }
        let mut parts = Vec::new();
        for number in 0..count {
            let name = parts::name(number);
            let (below, path) = (parts::folder(self.key).join(&name), self.dir.join(&name));
            match PartState::read(&path, self.key).filter(|state| state.done) {
                Some(state) => parts.push((below, state)),
                None => {
                    // Damaged after it was finished: it is read again, by whoever comes first.
                    std::fs::remove_dir_all(&path).map_err(PrepareError::io(&path, "removed"))?;
                    return Ok(None);
                }
            }
        }
        let spool = self.run.dedupe(&parts, self.work, self.key)?;
        let prepared = self.run.after_reading(&spool, self.work)?;
        if lease.is_lost() {
            return Ok(None);
        }
        lease.done();
        Ok(Some(prepared))
    }
}
