//! The functions of the fuzz targets over thousands of mutated seeds, always the same ones: no panic, no broken count, no
//! endless loop. `JAZARI_FUZZ_ROUNDS` sets how many mutations each target gets.

#[path = "../../../fuzz/src/seeds.rs"]
mod seeds;
#[path = "../../../fuzz/src/targets.rs"]
mod targets;

use std::path::Path;

/// Mutations of each target when nothing else is asked for.
const ROUNDS: usize = 400;

/// Pseudo-random numbers (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit.max(1)
    }
}

/// Changes that parsers trip over: bits, bytes, lengths, repeats, cuts, and pieces of other inputs.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    const BYTES: [u8; 16] =
        [0, 1, 0x7f, 0x80, 0xff, b'\n', b'"', b'\\', b'{', b'[', b']', b'}', b',', b'<', b'>', b'\r'];
    for _ in 0..1 + random.below(6) {
        let at = random.below(bytes.len());
        let length = 1 + random.below(64);
        match random.below(9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = BYTES[random.below(BYTES.len())],
            2 => bytes.insert(at, BYTES[random.below(BYTES.len())]),
            3 => _ = bytes.drain(at..(at + length).min(bytes.len())),
            4 => {
                let piece = bytes[at..(at + length).min(bytes.len())].to_vec();
                let times = 1 + random.below(50);
                bytes.splice(at..at, piece.repeat(times));
            }
            5 if random.below(4) == 0 => bytes.truncate(at),
            6 => {
                let from = random.below(other.len());
                bytes.splice(at..at, other[from..(from + length).min(other.len())].to_vec());
            }
            _ => {
                let number = [0_u64, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, u64::MAX, 1 << 40, 1 << 62];
                let number = number[random.below(number.len())].to_le_bytes();
                for (target, source) in bytes.iter_mut().skip(at).zip(&number[..[1, 2, 4, 8][random.below(4)]]) {
                    *target = *source;
                }
            }
        }
    }
}

fn run(name: &str) {
    let rounds = std::env::var("JAZARI_FUZZ_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples");
    let (_, target) = targets::TARGETS.into_iter().find(|(known, _)| *known == name).unwrap();
    let seeds = seeds::seeds(name, &samples);
    let dir = tempfile::tempdir().unwrap();
    for (i, seed) in seeds.iter().enumerate() {
        assert!(target(dir.path(), seed), "seed {i} of {name} is refused");
    }
    // The library's fenced panics would fill the log.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut failures = Vec::new();
    for round in 0..rounds {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (round as u64 + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9));
        let mut bytes = seeds[round % seeds.len()].clone();
        let other = &seeds[random.below(seeds.len())];
        mutate(&mut bytes, other, &mut random);
        if std::panic::catch_unwind(|| target(dir.path(), &bytes)).is_err() {
            failures.push(round);
        }
    }
    std::panic::set_hook(hook);
    let first = failures.first().copied();
    assert!(failures.is_empty(), "{name}: {} of {rounds} mutations failed, the first is {first:?}", failures.len());
}

macro_rules! targets {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        #[test]
        fn every_target_is_run() {
            assert_eq!(targets::TARGETS.map(|(name, _)| name), [$(stringify!($name)),*]);
        }
    };
}

targets!(
    jsonl,
    csv,
    json_array,
    parquet,
    arrow,
    warc,
    html,
    encoding,
    gzip,
    zstd,
    tokenizer,
    chat_template,
    config,
    manifest,
    chat,
    preference,
    table_csv,
    table_parquet,
    parquet_pages,
    sidecar,
    shard,
    fasttext,
    lid_model,
    opt_outs
);
