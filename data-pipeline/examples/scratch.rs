#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::expect_used)]
use std::time::Instant;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer, AddedToken};
const P: &str = r"\s*[\r\n]+|\s+(?!\S)| ?(?:[\p{L}\p{M}\u200c\u200d\u2d7f'’ʷ]|(?<=\p{L})\p{N}|\p{N}(?=\p{L}))+| ?\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+";
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let mut texts: Vec<String> = vec![];
    let mut dirs: Vec<_> = std::fs::read_dir("../shared/corpora").unwrap().map(|e| e.unwrap().path()).filter(|p| p.join("data.jsonl").exists() && !p.ends_with("_formats")).collect();
    dirs.sort();
    for d in dirs {
        for l in std::fs::read_to_string(d.join("data.jsonl")).unwrap().lines() {
            let v: serde_json::Value = serde_json::from_str(l).unwrap();
            texts.push(v["text"].as_str().unwrap().to_owned());
        }
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    println!("{} docs {} MB", texts.len(), bytes as f64 / 1e6);
    let split = Split::new(SplitPattern::Regex(P.into()), SplitDelimiterBehavior::Isolated, false).unwrap();
    let bl = ByteLevel::new(false, true, false);
    if args[1] == "regex" {
        let t = cpu();
        let re = split.regex;
        let mut n = 0;
        for t in &texts { n += re.find_iter(t).count(); }
        println!("regex {} pieces, cpu {:.2}", n, cpu() - t);
        return;
    }
    let runs: usize = args[2].parse().unwrap();
    let mut tok_last = None;
    for _ in 0..runs {
        let t = cpu(); let w = Instant::now();
        let mut tok = Tokenizer::new(BPE::default());
        tok.with_pre_tokenizer(Some(Sequence::new(vec![split.clone().into(), bl.into()])));
        tok.with_decoder(Some(bl));
        let mut tr: tokenizers::models::TrainerWrapper = BpeTrainer::builder().vocab_size(32000).show_progress(false).initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![AddedToken::from("<|end_of_text|>", true)]).build().into();
        tok.train(&mut tr, texts.iter()).unwrap();
        let s = tok.to_string(false).unwrap();
        println!("train {} cpu {:.2} wall {:.2} json {}", blake3::hash(s.as_bytes()).to_hex(), cpu() - t, w.elapsed().as_secs_f64(), s.len());
        tok_last = Some(tok);
    }
    if let Some(tok) = tok_last {
        for _ in 0..2 {
        let t = cpu();
        let mut n = 0usize;
        for x in &texts { n += tok.encode_fast(x.as_str(), false).unwrap().len(); }
        let c = cpu() - t;
        println!("encode_fast {} tokens, cpu {:.2}, {:.2} MB/s", n, c, bytes as f64 / 1e6 / c);
        }
    }
}
