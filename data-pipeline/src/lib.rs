//! Raw corpora to clean documents, tokenizer, token shards and the rows of step s. Has no tensors and no network, and
//! prints nothing.

pub mod card;
mod char_table;
pub mod chat;
pub mod clean;
pub mod config;
pub mod convert;
pub mod dataset;
pub mod decontaminate;
pub mod dedup;
pub mod document;
pub mod documents;
pub mod filter;
pub mod filters;
pub mod inspect;
pub mod licence;
pub mod lid;
mod limits;
pub mod loader;
pub mod manifest;
pub mod near;
pub mod normalize;
pub mod opt_out;
pub mod order;
pub mod pii;
pub mod prepare;
pub mod records;
pub mod removal;
pub mod repair;
mod rounds;
pub mod scrub;
pub mod shard;
mod share;
pub mod source;
mod split;
mod spool;
mod stages;
pub mod stats;
pub mod template;
pub mod tokenizer;
pub mod trace;
pub mod transliterate;
pub mod verify;
pub mod words;

pub use dataset::DataError;
