//! Tests of the manifest: round trip, identity, refusals.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn record(bytes: u64) -> FileRecord {
    FileRecord { bytes, blake3: "00".repeat(32) }
}

fn manifest() -> Manifest {
    let files = [("bin", 20), ("bin.index", 16), ("idx", megatron_index_bytes(2)), ("parquet", 900)];
    let shard = ShardRecord {
        name: "shard-00000".into(),
        split: Split::Train,
        lang: "ary_Arab".into(),
        source: "doda".into(),
        documents: 2,
        tokens: 10,
        text_bytes: 40,
        files: files.map(|(ending, bytes)| (ending.to_owned(), record(bytes))).into(),
    };
    let head = ManifestHead {
        dtype: Dtype::Uint16,
        tokenizer: TokenizerRecord {
            sha256: "11".repeat(32),
            vocab_size: 300,
            bos_id: Some(0),
            eos_id: 1,
            pad_id: None,
            files: BTreeMap::from([("tokenizer.json".to_owned(), record(5))]),
        },
        token_bytes: record(600),
        seed: 3,
        config_digest: "cc".into(),
    };
    Manifest::new(head, BTreeMap::from([("MIT".to_owned(), shard.counts())]), vec![shard])
}

fn read(bytes: &[u8]) -> Result<Manifest, String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(MANIFEST_FILE), bytes).unwrap();
    let place = dir.path().display().to_string();
    Manifest::read(dir.path()).map_err(|error| error.to_string().replace(&place, "DIR"))
}

#[test]
fn it_reads_back_and_its_id_is_the_digest_of_its_bytes() {
    let manifest = manifest();
    assert_eq!(read(&manifest.to_bytes()).unwrap(), manifest);
    assert_eq!(manifest.id(), blake3::hash(&manifest.to_bytes()).to_hex().as_str());
    assert_eq!(manifest.counts(Split::Train), Counts { documents: 2, tokens: 10, text_bytes: 40 });
    assert_eq!(manifest.counts(Split::Validation), Counts::default());
    let other = Manifest { seed: 4, ..manifest.clone() };
    assert_ne!(manifest.id(), other.id());
}

#[test]
fn other_versions_and_other_files_are_refused() {
    let text = String::from_utf8(manifest().to_bytes()).unwrap();
    assert_eq!(
        read(text.replace("\"version\": 1", "\"version\": 2").as_bytes()).unwrap_err(),
        "DIR/manifest.json: says in its version and its content differently whether it holds chats; restore the file from a \
         copy, or prepare the data again"
    );
    let future = r#"{"format": "jazari-tokens", "version": 7, "unheard": [], "of": {}}"#;
    assert!(read(future.as_bytes()).unwrap_err().contains("has format version 7"));
    assert_eq!(
        read(text.replace("jazari-tokens", "other").as_bytes()).unwrap_err(),
        "DIR/manifest.json: is a `other`, expected `jazari-tokens`; restore the file from a copy, or prepare the data again"
    );
    assert!(read(b"{}").unwrap_err().starts_with("DIR/manifest.json: is no dataset manifest (missing field `format`"));
    assert!(read(&text.as_bytes()[..200]).unwrap_err().contains("is no dataset manifest (EOF"));
    assert!(
        read(text.replace("\"seed\"", "\"sed\"").as_bytes()).unwrap_err().contains("is damaged (unknown field `sed`")
    );
    assert!(read(text.replace("  ", " ").as_bytes()).unwrap_err().contains("is not spelled as it was written"));
    let empty = tempfile::tempdir().unwrap();
    let message = Manifest::read(empty.path()).unwrap_err().to_string();
    assert!(message.ends_with("holds no manifest.json; give the folder that `jazari data prepare` wrote"), "{message}");
}

#[test]
fn contradictions_and_names_that_lead_outside_are_refused() {
    type Break = fn(&mut Manifest);
    let breaks: [(&str, Break); 10] = [
        ("uint32, which a vocabulary of 300", |m| m.dtype = Dtype::Uint32),
        ("special token 300, outside", |m| m.tokenizer.eos_id = 300),
        ("token_bytes.bin of 7 bytes, expected 600", |m| m.token_bytes.bytes = 7),
        ("tokenizer file `../x`", |m| drop(m.tokenizer.files.insert("../x".into(), record(1)))),
        ("shard `../shard-00000`", |m| m.shards[0].name = "../shard-00000".into()),
        ("language `darija`", |m| m.shards[0].lang = "darija".into()),
        ("2 documents, 1 tokens", |m| m.shards[0].tokens = 1),
        ("does not name the files", |m| drop(m.shards[0].files.remove("idx"))),
        ("shard-00000.bin 20 bytes, its counts make 22", |m| m.shards[0].tokens = 11),
        ("sizes by language", |m| m.shards[0].text_bytes = 41),
    ];
    for (expected, break_it) in breaks {
        let mut broken = manifest();
        break_it(&mut broken);
        let message = read(&broken.to_bytes()).unwrap_err();
        assert!(message.contains(expected), "`{message}` lacks `{expected}`");
    }
    let mut twice = manifest();
    twice.shards.push(twice.shards[0].clone());
    let twice = Manifest::new(twice.head(), twice.licences.clone(), twice.shards);
    assert!(read(&twice.to_bytes()).unwrap_err().contains("names shard-00000 twice"));
}
