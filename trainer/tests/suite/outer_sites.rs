//! Promise: sites that are joined by slow links end with the same bits whoever is killed on the way; an absent or late
//! site holds nobody up for ever; whoever does not fit is told why; the result is close to synchronous training at a
//! fraction of the bytes.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;

use crate::support::outer::{ARABIC_AND_TIFINAGH, LATIN, Outer, final_bpb, write_token};
use crate::support::{self, run_ok, set, text, tiny_dataset, train_tiny};
use rustix::process::{Pid, Signal, kill_process};
use trainer::checkpoint::store::list;

/// Six rounds of five steps; one site has the Arabic and Tifinagh texts, the other the Latin ones.
const A: [&str; 3] = [ARABIC_AND_TIFINAGH, "mixture.max_epochs=100", "expect={}"];
const B: [&str; 3] = [LATIN, "mixture.max_epochs=100", "expect={}"];

fn outer_keys(compress: &str) -> String {
    format!("sync_every: 5, compress: {compress}")
}

/// Both sites from beginning to end, undisturbed; returns the digest of the coordinator's state.
fn undisturbed(dir: &Path, compress: &str) -> String {
    let keys = outer_keys(compress);
    let (outer, coordinator) = Outer::start(dir, &["--sites", "2"]);
    let (a, b) = (outer.site("a", &keys, &A), outer.site("b", &keys, &B));
    a.finish();
    b.finish();
    coordinator.finish();
    let (round, digest) = outer.position();
    assert_eq!(round, 6);
    for site in ["a", "b"] {
        let rounds = outer.rounds(site);
        assert_eq!(rounds.len(), 6);
        assert!(
            rounds.iter().all(|round| round["included"] == true && round["sites"] == serde_json::json!(["a", "b"]))
        );
    }
    digest
}

/// Kills each site and the coordinator twice, with strangers at the door; returns the digest at the end.
fn disturbed(dir: &Path, compress: &str) -> String {
    let keys = outer_keys(compress);
    let (mut outer, mut coordinator) = Outer::start(dir, &["--sites", "2"]);
    // Alone it delivers and waits. Killed then, it must neither train nor send anything twice.
    let mut a = outer.site("a", &keys, &A);
    a.until("delivered: 1 of 2");
    a.kill();
    // Killed with a delta that is nowhere but in its memory: the sites offer theirs again.
    let mut a = outer.site("a", &keys, &A);
    a.until("delivered: 1 of 2");
    coordinator.kill();
    let mut coordinator_2 = outer.coordinator();
    let strangers: Vec<TcpStream> = (0..80)
        .map(|i| {
            let mut stream = TcpStream::connect(outer.address()).unwrap();
            if i % 2 == 0 {
                let _ = stream.write_all(&[0x16; 300]);
            }
            stream
        })
        .collect();
    let mut b = outer.site("b", &keys, &B);
    b.until("outer round 1:");
    b.kill();
    let b = outer.site("b", &keys, &B);
    outer.wait_for_round(3);
    coordinator_2.child.kill().unwrap();
    drop(coordinator_2);
    coordinator = outer.coordinator();
    outer.wait_for_round(4);
    a.kill();
    let a = outer.site("a", &keys, &A);
    a.finish();
    b.finish();
    coordinator.finish();
    drop(strangers);
    let (round, digest) = outer.position();
    assert_eq!(round, 6);
    digest
}

#[test]
fn kills_of_sites_and_coordinator_do_not_change_a_bit() {
    let dir = tempfile::tempdir().unwrap();
    let mut digests = Vec::new();
    for compress in ["int8", "none"] {
        let at = |name: &str| dir.path().join(format!("{compress}-{name}"));
        let expected = undisturbed(&at("whole"), compress);
        assert_eq!(undisturbed(&at("again"), compress), expected, "{compress}: repeated");
        assert_eq!(disturbed(&at("killed"), compress), expected, "{compress}: after kills");
        digests.push(expected);
    }
    assert_ne!(digests[0], digests[1]);
}

#[test]
fn a_site_may_be_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let expected = undisturbed(&dir.path().join("single"), "int8");
    let keys = outer_keys("int8");
    let (outer, coordinator) = Outer::start(&dir.path().join("cluster"), &["--sites", "2"]);
    // Far longer waits than this would still be no loss of a peer: the leader keeps talking to its team.
    let mut a =
        outer.launched_site(2, "a", &keys, &[&A[..], &["cluster.collective_timeout=4", "cluster.zero=1"]].concat());
    a.until("delivered: 1 of 2");
    std::thread::sleep(std::time::Duration::from_secs(6));
    let b = outer.site("b", &keys, &B);
    a.finish();
    b.finish();
    coordinator.finish();
    assert_eq!(outer.position().1, expected, "two processes or one at site a: the same bits");
}

#[test]
fn nobody_waits_for_ever_and_the_late_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let keys = outer_keys("int8");
    let serve = ["--sites", "2", "--min-sites", "1", "--round-timeout", "1"];
    let (outer, mut coordinator) = Outer::start(dir.path(), &serve);
    // Alone for two rounds; then the other comes, is stopped in the middle, misses a round and goes on.
    let a = outer.site("a", &keys, &[&A[..], &["max_steps=60"]].concat());
    outer.wait_for_round(2);
    let mut b = outer.site("b", &keys, &[&B[..], &["max_steps=60"]].concat());
    b.until("is in round");
    let pid = Pid::from_raw(b.child.id() as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    outer.wait_for_round(outer.position().0 + 2);
    kill_process(pid, Signal::CONT).unwrap();
    a.finish();
    let said = b.finish();
    assert!(said.contains("this site came too late, its part was dropped"), "{said}");
    coordinator.until("dropped, it goes on from there");
    coordinator.finish();
    let (a, b) = (outer.rounds("a"), outer.rounds("b"));
    assert_eq!((a.len(), b.len()), (12, 12));
    let sites = |round: &serde_json::Value| round["sites"].as_array().unwrap().len();
    assert!(a.iter().any(|round| sites(round) == 1) && b.iter().any(|round| round["included"] == false));
    assert!(b.iter().any(|round| round["included"] == true));
}

#[test]
fn without_a_coordinator_the_state_is_saved_and_the_run_goes_on_later() {
    let dir = tempfile::tempdir().unwrap();
    let keys = "sync_every: 5, compress: none, give_up_after: 2";
    let (mut outer, coordinator) = Outer::start(dir.path(), &["--sites", "1"]);
    let mut a = outer.site("a", keys, &A);
    a.until("outer round 1:");
    coordinator.kill();
    let (code, said) = a.end();
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("site a has not heard of the coordinator at 127.0.0.1:"), "{said}");
    let (newest, _) = list(&outer.run("a").join("checkpoints")).unwrap().remove(0);
    assert!(newest >= 10 && newest % 5 == 0, "saved where it had to wait: {newest}");
    // Without it, a resumed site says so and tries again; a fresh one cannot begin.
    let (code, said) = outer.site("a", keys, &A).end();
    assert_eq!(code, Some(75), "{said}");
    let (code, said) = outer.site("fresh", keys, &A).end();
    assert_eq!(code, Some(75), "{said}");
    assert!(!outer.run("fresh").exists(), "nothing was written");
    let coordinator = outer.coordinator();
    outer.site("a", keys, &A).finish();
    coordinator.finish();

    let whole = dir.path().join("whole");
    let (whole, coordinator) = Outer::start(&whole, &["--sites", "1"]);
    whole.site("a", keys, &A).finish();
    coordinator.finish();
    assert_eq!(whole.position(), outer.position());
}

#[test]
fn whoever_does_not_fit_is_told_why_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let keys = outer_keys("int8");
    let (outer, coordinator) = Outer::start(dir.path(), &["--sites", "2", "--min-sites", "1", "--round-timeout", "0"]);
    outer.site("a", &keys, &A).finish();
    let refused = |site: &str, keys: &str, more: &[&str], parts: &[&str]| {
        let (code, said) = outer.site(site, keys, &[&B[..], more].concat()).end();
        assert_eq!(code, Some(2), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}\n{said}");
        assert!(!outer.run(site).exists(), "nothing may be written");
    };
    refused("model", &keys, &["model.num_hidden_layers=3"], &["model is Llama of 3 layers", "Llama of 2 layers"]);
    refused("heads", &keys, &["model.rope_theta=5000.0"], &["]: model is Llama of 2 layers"]);
    let set_by = "if site a which came first is the wrong one";
    refused("often", "sync_every: 6", &[], &["outer.sync_every is 6 at site often", "5 in this run", set_by]);
    refused(
        "plain",
        "sync_every: 5, compress: none",
        &[],
        &["outer.compress is none at site plain", "int8 in this run"],
    );
    refused(
        "rate",
        "sync_every: 5, learning_rate: 1.0",
        &[],
        &["outer.learning_rate is 1 at site rate", "0.7 in this run"],
    );

    // Another tokenizer, with the same number of rows in the embedding.
    let data = dir.path().join("data");
    let smaller = "tokenizer={train: {vocab_size: 800}}";
    run_ok(&["data", "prepare", "configs/ci-tiny-data.yaml", "--set", &set("output_dir", &data), "--set", smaller]);
    let datasets = format!("datasets=[{{path: \"{}\"}}]", data.display());
    let vocabulary = tiny_vocabulary();
    refused("words", &keys, &[&datasets, &vocabulary], &["tokenizer is", "at site words"]);

    let token = write_token(&dir.path().join("wrong"), "fedcba9876543210fedcba9876543210");
    let arguments = outer.arguments("stranger", &keys, &B);
    let command: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = support::jazari(&command).env("JAZARI_OUTER_TOKEN_FILE", &token).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("it holds another token"), "{}", text(&output));
    assert!(!outer.run("stranger").exists(), "nothing may be written");
    let output = support::jazari(&command).env_remove("JAZARI_OUTER_TOKEN_FILE").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("sites need a secret"), "{}", text(&output));
    coordinator.kill();
}

fn tiny_vocabulary() -> String {
    let text = std::fs::read_to_string(tiny_dataset().join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    format!("model.vocab_size={}", manifest["tokenizer"]["vocab_size"])
}

/// One row of the comparison.
struct Row {
    name: String,
    bpb: f64,
    /// Bytes that a site sends and receives, for each step.
    bytes_per_step: f64,
}

/// `JAZARI_OUTER_STEPS=400` makes the runs longer.
#[test]
fn close_to_synchronous_training_at_a_fraction_of_the_bytes() {
    let steps: u64 = std::env::var("JAZARI_OUTER_STEPS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    let dir = tempfile::tempdir().unwrap();
    let max_steps = format!("max_steps={steps}");
    let shared =
        [max_steps.as_str(), "mixture.temperature=0", "mixture.max_epochs=1000", "expect={}", "logging_steps=50"];
    let eval = "eval={max_tokens_per_language: 32768}";
    let shared = [&shared[..], &[eval, "eval_steps=1000000"]].concat();
    // The same tokens of the same languages in the same shares, in one place.
    let both = "mixture.weights={ary_Latn: 1.5, fra_Latn: 1.5}";
    let synchronous = dir.path().join("synchronous");
    train_tiny(&synchronous, &[&shared[..], &[both, "global_batch_size=16 seq", "micro_batch_size=4"]].concat());
    let alone = dir.path().join("alone");
    train_tiny(&alone, &[&shared[..], &[ARABIC_AND_TIFINAGH]].concat());

    let parameters = 4.0 * parameters(&synchronous);
    // A ring over two processes: each sends and receives the whole vector once.
    let mut rows = vec![
        Row { name: "synchronous".into(), bpb: final_bpb(&synchronous), bytes_per_step: 2.0 * parameters },
        Row { name: "one site alone".into(), bpb: final_bpb(&alone), bytes_per_step: 0.0 },
    ];
    for (compress, every) in [("none", 10), ("int8", 10), ("int8", 25)] {
        let keys = format!("sync_every: {every}, compress: {compress}");
        let (outer, coordinator) = Outer::start(&dir.path().join(format!("{compress}-{every}")), &["--sites", "2"]);
        let a = outer.site("a", &keys, &[&shared[..], &[ARABIC_AND_TIFINAGH]].concat());
        let b = outer.site("b", &keys, &[&shared[..], &[LATIN]].concat());
        a.finish();
        b.finish();
        coordinator.finish();
        assert_eq!(final_bpb(&outer.run("a")), final_bpb(&outer.run("b")), "both end with the same parameters");
        let bytes: f64 = outer
            .rounds("a")
            .iter()
            .map(|round| round["sent_bytes"].as_f64().unwrap() + round["received_bytes"].as_f64().unwrap())
            .sum();
        let (bpb, bytes_per_step) = (final_bpb(&outer.run("a")), bytes / steps as f64);
        rows.push(Row { name: format!("{compress}, H = {every}"), bpb, bytes_per_step });
    }
    let (base, base_bytes) = (rows[0].bpb, rows[0].bytes_per_step);
    eprintln!("{steps} steps of 2 x 8 rows of 64 tokens, {:.0} parameters", parameters / 4.0);
    eprintln!(
        "| run | bits per byte | against synchronous | bytes a site and step | fewer by |\n|---|---|---|---|---|"
    );
    for Row { name, bpb, bytes_per_step } in &rows {
        let fewer = base_bytes / bytes_per_step;
        let change = 100.0 * (bpb / base - 1.0);
        eprintln!("| {name} | {bpb:.4} | {change:+.1} % | {bytes_per_step:.0} | {fewer:.1} |");
    }
    let [_, alone, none, int8, int8_rare] = rows.as_slice() else { panic!("five runs") };
    assert!(none.bpb < base * TOLERANCE && int8.bpb < base * TOLERANCE, "within {TOLERANCE} of synchronous training");
    assert!(int8.bpb < alone.bpb, "training together pays");
    assert!((int8.bpb / none.bpb - 1.0).abs() < 0.01, "compression costs less than a hundredth");
    assert!(base_bytes / none.bytes_per_step > 9.0);
    assert!(base_bytes / int8.bytes_per_step > 35.0 && base_bytes / int8_rare.bytes_per_step > 85.0);
}

/// Bits per byte of the sites together, relative to synchronous training on as many tokens.
const TOLERANCE: f64 = 1.1;

fn parameters(run: &Path) -> f64 {
    let text = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    events.filter_map(|event| event["parameters"].as_f64()).next().unwrap()
}
