//! A corpus larger than the memory allowed is prepared within it. It takes minutes, so it is started by hand:
//!
//! ```sh
//! JAZARI_TEST_MB=5000 JAZARI_TEST_MEMORY_MB=1000 cargo test --release -p data-pipeline --test suite -- --ignored --nocapture memory
//! ```

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use data_pipeline::config::PrepareConfig;
use data_pipeline::prepare::{PrepareEvent, prepare};
use serde_json::json;

static NEVER: AtomicBool = AtomicBool::new(false);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Texts of 100 to 2000 bytes; every tenth stood before, every thirteenth nearly.
fn write_corpus(path: &Path, megabytes: u64) {
    let mut out = BufWriter::new(File::create(path).unwrap());
    let syllables = ["sa", "la", "ba", "ka", "mo", "ri", "zi", "ta", "na", "chi", "wa", "ghi", "dou", "fe", "hi", "yo"];
    let (mut written, mut row) = (0, 0_u64);
    while written < megabytes * 1_000_000 {
        let original = if row.is_multiple_of(10) || row.is_multiple_of(13) { row / 2 } else { row };
        let mut state = (original + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = || {
            state ^= state >> 29;
            state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9);
            state >> 32
        };
        let words = 15 + next() % 250;
        let mut text = String::new();
        for _ in 0..words {
            (0..1 + next() % 4).for_each(|_| text.push_str(syllables[(next() % 16) as usize]));
            text.push(' ');
        }
        if row.is_multiple_of(13) {
            text.push_str("kemmel");
        }
        let line =
            format!("{{\"text\":\"{text}\",\"lang\":\"ary_Latn\",\"source\":\"made-up\",\"licence\":\"CC0-1.0\"}}\n");
        out.write_all(line.as_bytes()).unwrap();
        written += line.len() as u64;
        row += 1;
    }
    out.flush().unwrap();
}

/// Largest resident set so far, in bytes.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[test]
#[ignore = "takes minutes and gigabytes of disk; see the head of the file"]
fn a_corpus_larger_than_memory_is_prepared_within_it() {
    let (megabytes, memory) = (setting("JAZARI_TEST_MB", 600), setting("JAZARI_TEST_MEMORY_MB", 200));
    let dir = tempfile::tempdir_in(std::env::var_os("JAZARI_TEST_DIR").unwrap_or_else(|| "/tmp".into())).unwrap();
    let corpus = dir.path().join("a.jsonl");
    write_corpus(&corpus, megabytes);
    let config = json!({
        "output_dir": dir.path().join("out"),
        "sources": [{"path": corpus}],
        "allow_licences": ["CC0-1.0"],
        "tokenizer": {"train": {"vocab_size": 8192, "max_bytes": 20_000_000}},
        "paragraphs": {},
        "near": {},
        "limits": {"max_memory_bytes": memory * 1_000_000},
    });
    let config: PrepareConfig = serde_json::from_value(config).unwrap();
    let start = Instant::now();
    println!("{megabytes} MB of JSONL, limits.max_memory_bytes {memory} MB");
    let observe = |event: &PrepareEvent| match event {
        PrepareEvent::StageStarted { stage, .. } => {
            println!("{:>6.0} s  {} begins", start.elapsed().as_secs_f64(), stage.name())
        }
        PrepareEvent::StageFinished { stage, .. } => {
            let peak = peak().unwrap_or(0) / 1_000_000;
            println!("{:>6.0} s  {} done, peak resident {peak} MB", start.elapsed().as_secs_f64(), stage.name());
        }
        _ => {}
    };
    let done = prepare(&config, &observe, &NEVER).unwrap();
    let total = &done.stats.total;
    println!("{} documents of {} rows, dropped {:?}", total.documents, total.rows, total.dropped);
    let peak = peak().expect("this test needs /proc");
    assert!(peak < memory * 1_000_000, "{peak} bytes were resident");
}
