//! Owns what a preparation reports while it runs; never prints.

/// A stage of the preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Raw files to documents; progress in stored bytes of the input.
    Read,
    /// Documents that repeat others, and the split; progress in bytes of text, once for each search.
    Dedup,
    /// Training or loading the tokenizer; progress in bytes of text.
    Tokenizer,
    /// Documents to token shards; progress in bytes of text.
    Shards,
}

impl Stage {
    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Read => "read",
            Stage::Dedup => "dedup",
            Stage::Tokenizer => "tokenizer",
            Stage::Shards => "shards",
        }
    }
}

/// What happened. Observers can change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrepareEvent {
    /// A stage begins.
    StageStarted {
        /// Which.
        stage: Stage,
        /// Bytes it will go through, see [`Stage`].
        total_bytes: u64,
    },
    /// A stage has come this far.
    Progress {
        /// Which.
        stage: Stage,
        /// Bytes gone through since it began.
        bytes: u64,
        /// Rows or documents gone through since it began.
        rows: u64,
    },
    /// A stage is done.
    StageFinished {
        /// Which.
        stage: Stage,
        /// Its result was on disk already, from a run that was interrupted.
        reused: bool,
    },
    /// Something the user should look at, though the run goes on.
    Warning(String),
}

/// Receives events on the thread that called `prepare`.
pub type Observer<'a> = &'a dyn Fn(&PrepareEvent);
