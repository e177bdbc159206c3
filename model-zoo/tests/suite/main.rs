//! Owns every integration test of the crate, in one program that links once; never touches what a test checks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod adapter;
mod backward;
mod generate;
mod gpt2;
mod llama;
mod long_context;
mod mixtral;
mod one_family;
mod published;
mod tiny;
