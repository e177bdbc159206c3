#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jazari_fuzz::run_named("shard", bytes));
