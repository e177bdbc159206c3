//! Owns token shards: one payload with the indices that other trainers read, and a row of facts a document; never knows
//! what tokens mean.

mod file;
pub mod format;
pub mod reader;
pub mod sidecar;
pub mod writer;

pub(crate) use self::file::{DigestedFile, digest_of, sync_folder};
