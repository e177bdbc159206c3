//! Owns every integration test of the crate, in one program that links once; never touches what a test checks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod all_corpora;
mod beside_the_text;
mod best_fit;
mod broken_records;
mod chats;
mod damage;
mod damaged_corpora;
mod dedup_figures;
mod dedup_rows;
mod fixtures;
mod formats;
mod governance;
mod hostile_tokenizers;
mod interruption;
mod lid;
mod memory;
mod mutations;
mod near_duplicates;
mod pii_audit;
mod prepare;
mod reading_speed;
mod removal_crash;
mod repair_figures;
mod repair_recall;
mod rows;
mod scrub;
mod scrub_rows;
mod shards;
mod support;
mod text_stages;
mod tokenizer_gates;
mod training;
mod transliteration;
mod web_and_arrow;
