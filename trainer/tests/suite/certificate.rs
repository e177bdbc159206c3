//! Promise: a certificate repeats its run to the bit elsewhere, on another number of processes and from its middle; and
//! whatever is changed after signing is refused and named.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use trainer::certificate::envelope::{Envelope, PrivateKey};
use trainer::certificate::{self, Statement};

use crate::support::{jazari, run, run_ok, text, tiny_dataset, train_tiny};

const SETTINGS: [&str; 4] = ["micro_batch_size=1", "save_steps=10", "logging_steps=1", "cluster.digest_steps=5"];

/// A run with its data set, an export, a key and a certificate, all in one folder.
struct Certified {
    root: tempfile::TempDir,
}

impl Certified {
    fn make() -> Self {
        let root = tempfile::tempdir().unwrap();
        let certified = Self { root };
        let at = |name: &str| certified.at(name);
        copy(&tiny_dataset(), Path::new(&at("data")));
        train_tiny(
            Path::new(&at("run")),
            &[&SETTINGS[..], &[&format!("datasets=[{{path: {:?}}}]", at("data"))]].concat(),
        );
        run_ok(&["export", &at("run"), "--to", "hf", "--out", &at("export")]);
        run_ok(&["key", "new", &at("institute")]);
        run_ok(&["certify", &at("run"), "--key", &at("institute"), "--export", &at("export")]);
        certified
    }

    fn at(&self, name: &str) -> String {
        self.root.path().join(name).display().to_string()
    }

    fn certificate(&self) -> String {
        self.at("run/certificate.json")
    }

    fn statement(&self) -> Statement {
        certificate::open(Path::new(&self.certificate()), None).unwrap().statement
    }

    /// The same files in another place; hard links would share what is tampered with.
    fn copied(&self) -> Self {
        let root = tempfile::tempdir().unwrap();
        copy(self.root.path(), root.path());
        Self { root }
    }

    fn verify(&self) -> Output {
        let [key, data, export] = ["institute.pub", "data", "export"].map(|name| self.at(name));
        run(&["verify", &self.certificate(), "--key", &key, "--dataset", &data, "--export", &export])
    }

    fn replay(&self, out: &str, more: &[&str]) -> Vec<String> {
        let data = format!("datasets=[{{path: {:?}}}]", self.at("data"));
        let (certificate, key, out) = (self.certificate(), self.at("institute.pub"), self.at(out));
        let fixed = ["replay", &certificate, "--key", &key, "--out", &out, "--set", &data];
        fixed.iter().chain(more).map(|part| (*part).to_owned()).collect()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn ended(arguments: &[String], code: i32, said: &[&str]) -> String {
    let output = jazari(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    let told = text(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{told}");
    said.iter().for_each(|words| assert!(told.contains(words), "{words:?} is not in\n{told}"));
    told
}

#[test]
fn a_certified_run_is_repeated_to_the_bit_elsewhere() {
    let original = Certified::make();
    // The certificate and the data travel; the run stays behind.
    let elsewhere = original.copied();
    fs::remove_dir_all(elsewhere.at("run/checkpoints")).unwrap();
    let launched: Vec<String> = ["launch", "--nproc", "2", "--"]
        .iter()
        .map(|part| (*part).to_owned())
        .chain(elsewhere.replay("two", &[]))
        .collect();
    let said =
        ["ok   steps 1..30: same bits (30 losses, 6 digests of parameters, 3 of states)", "replayed: the same bits"];
    ended(&launched, 0, &said);
    // A second time nothing is left to do but the comparison.
    ended(&elsewhere.replay("two", &[]), 0, &said);

    // A stretch from the middle needs the checkpoint it begins with.
    let told = ended(&elsewhere.replay("part", &["--from-step", "20"]), 2, &["there is no checkpoint of step 20"]);
    assert!(told.contains("there are: none"), "{told}");
    let part = ["--from-step", "20", "--steps", "5", "--run", &original.at("run")];
    let said =
        ["ok   steps 21..25: same bits (5 losses, 1 digests of parameters", "steps 21 to 25 replayed: the same bits"];
    ended(&elsewhere.replay("part", &part), 0, &said);
    assert!(!PathBuf::from(elsewhere.at("wrong")).exists());

    let sparse = original.copied();
    let mut statement = sparse.statement();
    statement.predicate.trace.steps.retain(|step| step.step % 10 == 0);
    statement.predicate.trace.parameters.clear();
    fs::remove_file(sparse.certificate()).unwrap();
    let key = PrivateKey::read(Path::new(&sparse.at("institute"))).unwrap();
    certificate::write(Path::new(&sparse.certificate()), &statement, &key).unwrap();
    let words = "it says nothing of the steps 11 to 15; the next that it knows is 20: write --steps 10";
    ended(&sparse.replay("wrong", &["--from-step", "10", "--steps", "5"]), 2, &[words]);

    for (more, words) in [
        (vec!["--set", "seed=7"], "seed was 1234, now 7"),
        (vec!["--set", "learning_rate=0.5"], "learning_rate"),
        (vec!["--from-step", "30"], "it certifies steps 1 to 30"),
        (vec!["--steps", "0"], "at least one step"),
    ] {
        ended(&elsewhere.replay("wrong", &more), 2, &[words]);
    }
    assert!(!PathBuf::from(elsewhere.at("wrong")).exists(), "a refused replay writes nothing");
    ended(&original.replay("run", &[]), 2, &["this is the certified run itself"]);
}

/// A name, what is claimed, and how the replay answers.
type Claim = (&'static str, fn(&mut Statement), i32, &'static [&'static str]);

#[test]
fn a_certificate_that_claims_something_else_is_found_out() {
    let original = Certified::make();
    let key = PrivateKey::read(Path::new(&original.at("institute"))).unwrap();
    // An honest signature under a wrong claim: only repeating the run can tell.
    let claims: [Claim; 3] = [
        (
            "loss",
            |s| {
                let step = &mut s.predicate.trace.steps[11];
                (step.loss, step.exact) = (step.loss - 1.0, "0".repeat(32));
            },
            3,
            &["ok   steps 1..11: same bits", "FAIL step 12: loss ", "ok   steps 13..30", "DIFFERENT"],
        ),
        (
            "digest",
            |s| {
                s.predicate.trace.parameters.insert(10, "0".repeat(64));
            },
            3,
            &["near step 10: parameters differ in their bits", "the same to rounding, not to the bit"],
        ),
        (
            "state",
            |s| {
                s.predicate.checkpoint.plan = "0".repeat(64);
            },
            2,
            &["another plan than the certified one"],
        ),
    ];
    let honest = original.statement();
    for (name, change, code, said) in claims {
        let mut statement = honest.clone();
        change(&mut statement);
        fs::remove_file(original.certificate()).unwrap();
        certificate::write(Path::new(&original.certificate()), &statement, &key).unwrap();
        ended(&original.replay(name, &[]), code, said);
    }
}

/// What is done to a copy, and the words that must name it.
type Tampering = (&'static str, fn(&Certified), &'static str);

fn edit(path: String, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn flip(path: String) {
    edit(path, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
}

fn replace(path: String, from: &str, to: &str) {
    let before = fs::read_to_string(&path).unwrap();
    assert!(before.contains(from), "{path} has no {from}");
    fs::write(path, before.replacen(from, to, 1)).unwrap();
}

fn first_shard(certified: &Certified) -> String {
    let shards = fs::read_dir(certified.at("data")).unwrap().map(|entry| entry.unwrap().path());
    let mut shards: Vec<PathBuf> = shards.filter(|path| path.extension().is_some_and(|e| e == "bin")).collect();
    shards.sort();
    shards.remove(0).display().to_string()
}

/// Signs other words with the envelope's own fields left as they were.
fn claim(certified: &Certified, signer: &str, change: impl FnOnce(&mut Statement)) {
    let mut statement = certified.statement();
    change(&mut statement);
    let key = PrivateKey::read(Path::new(&certified.at(signer))).unwrap();
    let envelope = Envelope::seal(&serde_json::to_vec(&statement).unwrap(), &key);
    let mut changed = serde_json::to_value(&envelope).unwrap();
    if signer != "institute" {
        let honest: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(certified.certificate()).unwrap()).unwrap();
        changed["signatures"][0]["keyid"] = honest["signatures"][0]["keyid"].clone();
    }
    fs::write(certified.certificate(), changed.to_string()).unwrap();
}

fn signed_by_a_stranger(certified: &Certified) {
    run_ok(&["key", "new", &certified.at("stranger")]);
    claim(certified, "stranger", |statement| statement.predicate.run = "better".into());
}

const CHECKPOINT: &str = "run/checkpoints/step-00000030";

const TAMPERINGS: [Tampering; 24] = [
    ("weights", |c| flip(c.at(&format!("{CHECKPOINT}/model.safetensors"))), "model.safetensors: the file was changed"),
    ("moments", |c| flip(c.at(&format!("{CHECKPOINT}/optimizer.safetensors"))), "optimizer.safetensors: the file was"),
    (
        "manifest",
        |c| replace(c.at(&format!("{CHECKPOINT}/MANIFEST.json")), "\"tokens\": ", "\"tokens\": 9"),
        "MANIFEST.json",
    ),
    (
        "plan in the checkpoint",
        |c| flip(c.at(&format!("{CHECKPOINT}/plan.json"))),
        "step-00000030/plan.json: the file was",
    ),
    ("model config", |c| flip(c.at(&format!("{CHECKPOINT}/config.json"))), "step-00000030/config.json: the file was"),
    ("lost moments", |c| fs::remove_file(c.at(&format!("{CHECKPOINT}/optimizer.safetensors"))).unwrap(), "is missing"),
    ("emptied weights", |c| edit(c.at(&format!("{CHECKPOINT}/model.safetensors")), Vec::clear), "model.safetensors"),
    (
        "configuration",
        |c| replace(c.at("run/config.resolved.yaml"), "seed: 1", "seed: 2"),
        "config.resolved.yaml: the file",
    ),
    ("plan", |c| flip(c.at("run/plan.json")), "run/plan.json: the file was changed"),
    ("licences", |c| replace(c.at("run/data.json"), "CC0", "MIT"), "data.json: the file was changed"),
    (
        "losses",
        |c| replace(c.at("run/metrics.jsonl"), "\"loss\":", "\"loss\":0"),
        "metrics.jsonl: the file was changed",
    ),
    ("tokenizer", |c| flip(c.at("run/tokenizer/tokenizer.json")), "tokenizer/tokenizer.json: the file was changed"),
    ("shard", |c| flip(first_shard(c)), ".bin: the file was changed"),
    ("short shard", |c| edit(first_shard(c), |bytes| bytes.truncate(bytes.len() - 2)), ".bin: the file was changed"),
    ("data manifest", |c| flip(c.at("data/manifest.json")), "data/manifest.json: the file was changed"),
    (
        "added data",
        |c| fs::write(c.at("data/shard-99999.bin"), "ab").unwrap(),
        "shard-99999.bin: the file is not in the",
    ),
    ("exported weights", |c| flip(c.at("export/model.safetensors")), "export/model.safetensors: the file was changed"),
    (
        "exported config",
        |c| replace(c.at("export/config.json"), ": ", ":  "),
        "export/config.json: the file was changed",
    ),
    (
        "added code",
        |c| fs::write(c.at("export/modeling.py"), "import os").unwrap(),
        "modeling.py: the file is not in the",
    ),
    (
        "linked file",
        |c| {
            fs::rename(c.at("export/tokenizer.json"), c.at("export/.tokenizer.json")).unwrap();
            std::os::unix::fs::symlink(".tokenizer.json", c.at("export/tokenizer.json")).unwrap();
        },
        "it is a symbolic link",
    ),
    ("payload", |c| replace(c.certificate(), "\"payload\": \"ey", "\"payload\": \"eW"), "certificate.json: refused"),
    ("signature", |c| replace(c.certificate(), "\"sig\": \"", "\"sig\": \"AAAA"), "the signature does not fit"),
    ("another signer", signed_by_a_stranger, "the signature does not fit"),
    (
        "half a certificate",
        |c| edit(c.certificate(), |bytes| bytes.truncate(bytes.len() / 2)),
        "certificate.json: refused",
    ),
];

#[test]
fn every_tampering_is_refused_and_named() {
    let original = Certified::make();
    let untouched = original.verify();
    assert_eq!(untouched.status.code(), Some(0), "{}", text(&untouched));
    assert!(text(&untouched).contains("everything is as certified"), "{}", text(&untouched));
    for (name, tamper, words) in TAMPERINGS {
        let copy = original.copied();
        tamper(&copy);
        let output = copy.verify();
        assert_eq!(output.status.code(), Some(1), "{name}\n{}", text(&output));
        assert!(text(&output).contains(words), "{name}: {words:?} is not in\n{}", text(&output));
    }
}

#[test]
fn what_is_not_at_hand_is_said_and_strangers_are_warned_of() {
    let original = Certified::make();
    let alone = original.at("alone.json");
    fs::copy(original.certificate(), &alone).unwrap();
    fs::rename(original.at("export"), original.at("moved")).unwrap();
    let output = run_ok(&["verify", &alone]);
    let told = text(&output);
    for words in [
        "which the certificate itself names",
        "name the one you trust with --key",
        "note: run was not checked",
        "note: export-0 was not checked: it is not at ",
        "what is at hand is as certified",
    ] {
        assert!(told.contains(words), "{words:?} is not in\n{told}");
    }
    // The data set is where the run found it.
    assert!(told.contains("ok   data-0"), "{told}");
    run_ok(&["key", "new", &original.at("other")]);
    let other = run(&["verify", &alone, "--key", &original.at("other.pub")]);
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other).contains("not with the key") && text(&other).contains("that you trust"), "{}", text(&other));

    let (key, run_dir) = (original.at("institute"), original.at("run"));
    let public = original.at("institute.pub");
    for (arguments, words) in [
        (vec!["certify", &run_dir, "--key", &key], "certificate.json: it exists already"),
        (vec!["certify", &run_dir, "--key", &public, "--out", &alone], "others may use it"),
        (vec!["certify", &key, "--key", &key], "neither a checkpoint nor a run directory"),
        (vec!["key", "new", &key], "it exists already"),
        (vec!["replay", &key], "this is no signed certificate"),
    ] {
        let output = run(&arguments);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}\n{}", text(&output));
        assert!(text(&output).contains(words), "{words:?} is not in\n{}", text(&output));
    }
}

/// The signature is one that others can check: with OpenSSL, over the bytes that DSSE names.
#[test]
fn openssl_accepts_the_signature() {
    let original = Certified::make();
    let envelope: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(original.certificate()).unwrap()).unwrap();
    let decode = |value: &serde_json::Value| {
        let [encoded, decoded] = ["encoded", "decoded"].map(|name| original.at(name));
        fs::write(&encoded, value.as_str().unwrap()).unwrap();
        let done = Command::new("openssl").args(["base64", "-d", "-A", "-in", &encoded, "-out", &decoded]).status();
        done.ok().filter(std::process::ExitStatus::success).map(|_| fs::read(decoded).unwrap())
    };
    let (Some(payload), Some(signature)) = (decode(&envelope["payload"]), decode(&envelope["signatures"][0]["sig"]))
    else {
        eprintln!("SKIPPED: there is no openssl here, so this test checked NOTHING");
        return;
    };
    let kind = envelope["payloadType"].as_str().unwrap();
    let signed = [format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).as_bytes(), &payload].concat();
    fs::write(original.at("signed"), &signed).unwrap();
    fs::write(original.at("signature"), &signature).unwrap();
    let check = |what: &str| {
        let [key, signature, signed] = ["institute.pub", "signature", what].map(|name| original.at(name));
        let arguments =
            ["pkeyutl", "-verify", "-pubin", "-inkey", &key, "-rawin", "-in", &signed, "-sigfile", &signature];
        Command::new("openssl").args(arguments).output().unwrap().status.success()
    };
    assert!(check("signed"));
    fs::write(original.at("changed"), [&signed[..], b" "].concat()).unwrap();
    assert!(!check("changed"));
    // And its keys sign for us.
    let made = original.at("made");
    run_ok_of("openssl", &["genpkey", "-algorithm", "ed25519", "-out", &made]);
    run_ok_of("chmod", &["600", &made]);
    let out = original.at("second.json");
    run_ok(&["certify", &original.at("run"), "--key", &made, "--out", &out]);
    let statement: Statement = original.statement();
    assert!(statement.subject.len() > 10 && statement.predicate.crates.contains_key("burn"));
}

fn run_ok_of(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}\n{}", text(&output));
}
