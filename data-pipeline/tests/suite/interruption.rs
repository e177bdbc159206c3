//! A preparation that is killed goes on to the same bytes; several processes together make the bytes of one; a full disk
//! is an error that loses nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use data_pipeline::config::PrepareConfig;
use data_pipeline::prepare::{PrepareError, PrepareEvent, Stage, Worker, prepare, prepare_together};
use serde_json::{Value, json};

use crate::support::disk::SmallDisk;

static NEVER: AtomicBool = AtomicBool::new(false);

/// Names the configuration to a child process.
const CONFIG: &str = "TEST_PREPARE_CONFIG";
const TOGETHER: &str = "TEST_PREPARE_TOGETHER";

/// A made-up text; every seventh is that of another row, some differ in one word.
fn text(i: usize) -> String {
    let i = if i.is_multiple_of(7) { i / 7 } else { i };
    let mut state = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state >> 29;
        state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state >> 32
    };
    let syllables = ["sa", "la", "ba", "ka", "mo", "ri", "zi", "ta", "na", "chi", "wa", "ghi"];
    let mut word = || (0..3).map(|_| syllables[next() as usize % syllables.len()]).collect::<String>();
    let mut text: Vec<String> = (0..12 + i % 30).map(|_| word()).collect();
    if i.is_multiple_of(5) {
        text.push("kont kanqra had lktab lli jabo liya men lmaktaba".to_owned());
    }
    text.join(" ")
}

/// Files of `rows` rows each, one of them compressed, one with broken rows, one a table.
fn write_inputs(dir: &Path, files: usize, rows: usize) {
    for file in 0..files {
        let row = |i: usize| {
            let lang = if i.is_multiple_of(3) { "ary_Latn" } else { "arq_Latn" };
            json!({"text": text(file * rows + i), "lang": lang, "source": format!("s{}", i % 2), "licence": "MIT"})
        };
        let mut lines: Vec<String> = (0..rows).map(|i| row(i).to_string()).collect();
        if file == 1 {
            lines.iter_mut().step_by(500).for_each(|line| line.truncate(9));
        }
        let bytes = (lines.join("\n") + "\n").into_bytes();
        match file % 3 {
            2 => std::fs::write(dir.join(format!("{file}.jsonl.zst")), zstd::encode_all(bytes.as_slice(), 1).unwrap()),
            _ => std::fs::write(dir.join(format!("{file}.jsonl")), bytes),
        }
        .unwrap();
    }
    let table: String = (0..rows).map(|i| format!("\"{}\",fra_Latn,MIT\n", text(i + 1_000_000))).collect();
    std::fs::write(dir.join("t.csv"), format!("text,lang,licence\n{table}")).unwrap();
}

fn config(dir: &Path, out: &Path) -> Value {
    json!({
        "output_dir": out,
        "sources": [{"path": dir.join("*.jsonl*")}, {"path": dir.join("t.csv")}],
        "allow_licences": ["MIT"],
        "tokenizer": {"train": {"vocab_size": 280, "max_bytes": 100_000}},
        "paragraphs": {"min_count": 3},
        "near": {"threshold": 0.8},
        "shards": {"max_tokens": 20_000},
        "limits": {"checkpoint_bytes": 65536, "max_memory_bytes": 134_217_728},
    })
}

fn parsed(config: &Value) -> PrepareConfig {
    serde_json::from_value(config.clone()).unwrap()
}

/// Every file below a folder but the one that holds times.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            found.extend(contents(&path).into_iter().map(|(below, bytes)| (name.join(below), bytes)));
        } else if name != Path::new("inputs.json") {
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
    found
}

/// This very test program, preparing what `config` says.
fn child(config: &Path, together: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "interruption::as_a_child_of_another_test", "--ignored", "--nocapture"])
        .env(CONFIG, config);
    if together {
        command.env(TOGETHER, "1");
    }
    command.stdout(std::process::Stdio::null()).spawn().unwrap()
}

#[test]
#[ignore = "the other tests start it in a process of its own"]
fn as_a_child_of_another_test() {
    let Ok(path) = std::env::var(CONFIG) else { return };
    let config = parsed(&serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap());
    let worker = Worker { lease_time: Duration::from_secs(2) };
    let done = match std::env::var(TOGETHER) {
        Ok(_) => prepare_together(&config, &worker, &|_| {}, &NEVER),
        Err(_) => prepare(&config, &|_| {}, &NEVER),
    };
    done.unwrap();
}

#[test]
fn killed_again_and_again_it_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    write_inputs(dir.path(), 3, 2_500);
    let whole = dir.path().join("whole");
    prepare(&parsed(&config(dir.path(), &whole)), &|_| {}, &NEVER).unwrap();
    let expected = contents(&whole);
    let out = dir.path().join("out");
    let path = dir.path().join("config.json");
    std::fs::write(&path, config(dir.path(), &out).to_string()).unwrap();
    let mut kills = 0_u64;
    while !out.exists() && kills < 200 {
        let mut child = child(&path, false);
        // Later and later, so that every stage is hit and the end is reached.
        std::thread::sleep(Duration::from_millis(20 + kills * 37 % 400 + kills * 4));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    let done = prepare(&parsed(&config(dir.path(), &out)), &|_| {}, &NEVER).unwrap();
    assert!(contents(&done.dir) == expected, "{kills} kills changed the bytes");
    assert!(kills >= 3, "{kills}");
    assert!(!dir.path().join(".out.preparing").exists());
}

#[test]
fn finished_shards_are_not_made_again() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    write_inputs(dir.path(), 3, 2_500);
    let whole = dir.path().join("whole");
    prepare(&parsed(&config(dir.path(), &whole)), &|_| {}, &NEVER).unwrap();
    let expected = contents(&whole);
    let out = dir.path().join("out");
    let config = parsed(&config(dir.path(), &out));
    let shards = dir.path().join(".out.preparing/dataset");
    let inode = |path: PathBuf| std::fs::metadata(path).unwrap().ino();
    let finished = |folder: &Path| {
        let log = std::fs::read_to_string(folder.with_file_name("shards.jsonl")).unwrap();
        log.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    // Stopped at the first report of the stage, which comes after the first group of documents.
    let stop = AtomicBool::new(false);
    let observe = |event: &PrepareEvent| {
        if let PrepareEvent::Progress { stage: Stage::Shards, .. } = event {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    };
    assert!(matches!(prepare(&config, &observe, &stop), Err(PrepareError::Interrupted { .. })));
    let before = finished(&shards);
    assert!(before.len() >= 2, "{}", before.len());
    let first = inode(shards.join("shard-00000.bin"));
    let rows = before[0]["sums"]["counts"]["documents"].as_u64();

    // Damage in a finished shard: it and what follows is made again, what stands before it is not.
    let damaged = shards.join("shard-00001.parquet");
    let mut bytes = std::fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    std::fs::write(shards.join("stray"), "left by somebody").unwrap();
    let least = std::sync::Mutex::new(None);
    let observe = |event: &PrepareEvent| {
        if let PrepareEvent::Progress { stage: Stage::Shards, rows, .. } = event {
            least.lock().unwrap().get_or_insert(*rows);
        }
    };
    let done = prepare(&config, &observe, &NEVER).unwrap();
    assert!(contents(&done.dir) == expected, "going on changed the bytes");
    assert_eq!(inode(done.dir.join("shard-00000.bin")), first, "the first shard was made again");
    assert!(*least.lock().unwrap() > rows, "it began anew");
}

#[test]
fn several_processes_and_one_that_is_killed_make_the_bytes_of_one() {
    let dir = tempfile::tempdir().unwrap();
    write_inputs(dir.path(), 6, 600);
    let whole = dir.path().join("whole");
    prepare(&parsed(&config(dir.path(), &whole)), &|_| {}, &NEVER).unwrap();
    let out = dir.path().join("out");
    let path = dir.path().join("config.json");
    std::fs::write(&path, config(dir.path(), &out).to_string()).unwrap();
    let mut children: Vec<Child> = (0..3).map(|_| child(&path, true)).collect();
    std::thread::sleep(Duration::from_millis(300));
    let mut victim = children.remove(0);
    victim.kill().unwrap();
    victim.wait().unwrap();
    children.push(child(&path, true));
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert!(contents(&out) == contents(&whole), "several processes wrote other bytes");
    assert!(!dir.path().join(".out.preparing").exists());
}

#[test]
fn a_full_disk_is_an_error_and_space_lets_it_go_on() {
    let dir = tempfile::tempdir().unwrap();
    write_inputs(dir.path(), 3, 2_500);
    let whole = dir.path().join("whole");
    prepare(&parsed(&config(dir.path(), &whole)), &|_| {}, &NEVER).unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 1) else { return };
    let out = disk.path().join("out");
    let config = parsed(&config(dir.path(), &out));
    let (mut full, mut size) = (0, 1);
    let done = loop {
        match prepare(&config, &|_| {}, &NEVER) {
            Ok(done) => break done,
            Err(error @ (PrepareError::Io { .. } | PrepareError::Data(_) | PrepareError::Dedup(_))) => {
                assert!(error.to_string().contains("free space"), "{error}");
                full += 1;
            }
            Err(other) => panic!("{other}"),
        }
        size += 1;
        assert!(size < 64, "it never ends");
        disk.resize(size);
    };
    assert!(full >= 2, "{full}");
    assert!(contents(&done.dir) == contents(&whole), "a full disk changed the bytes");
}
