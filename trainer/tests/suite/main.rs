//! Owns every integration test of the crate and the binary, in one program that links once; never touches what a test checks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod adapters;
mod clean_rows;
mod cluster_faults;
mod cluster_invariance;
mod cluster_numbers;
mod continued_training;
mod damaged_checkpoints;
mod evaluation;
mod full_disk;
mod gguf_export;
mod golden_losses;
mod gpu_features;
mod hostile_hub;
mod hub_directory;
mod hub_experts_and_gpt2;
mod hub_export;
mod hub_families;
mod hub_import;
mod kill_anywhere;
mod malformed_configs;
mod malformed_data_configs;
mod mistral_layout;
mod mixing;
mod muon;
mod normalize_rows;
mod outer_sites;
mod parity;
mod resume_is_bit_identical;
mod selftest;
mod sft;
mod shell_support;
mod shipped_configs;
mod support;
mod take_down;
mod tidy;
