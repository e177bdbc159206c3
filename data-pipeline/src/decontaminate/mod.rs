//! Owns finding benchmark items in training texts: reading benchmarks, an index of their n-grams, hits with the text that
//! matched; never drops a document itself.
//!
//! Both sides are compared by [`crate::near::words`], so other spellings, diacritics, case, tatweel and the script of
//! Amazigh do not hide an item. Suggested reading order: [`config`], `items`, `index`, `search`.

pub mod config;
mod index;
mod items;
pub mod rows;
mod search;

pub use config::{DecontaminateConfig, OnHit};
pub use index::{BenchmarkFile, Benchmarks};
pub use items::BenchmarkError;
pub use search::{Action, Hit, SearchBuffers};

#[cfg(test)]
mod tests;
