//! Every kind of damage to a dataset is found, named and explained.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::support::{self, NEVER, dataset, tokenizer};
use data_pipeline::DataError;
use data_pipeline::dataset::Dataset;
use data_pipeline::loader::Loader;
use data_pipeline::manifest::{FileRecord, Manifest};
use data_pipeline::order::{MixtureSpec, Order};
use data_pipeline::shard::format::Dtype;
use data_pipeline::verify::{VerifyReport, verify};

struct Sound {
    _dir: tempfile::TempDir,
    data: PathBuf,
    manifest: Manifest,
}

fn sound() -> Sound {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, _) = dataset(dir.path());
    Sound { data: dir.path().join("data"), manifest, _dir: dir }
}

impl Sound {
    fn verify(&self) -> Result<VerifyReport, String> {
        verify(&self.data, &|_| {}, &NEVER).map_err(|error| self.place(&error.to_string()))
    }

    fn open(&self) -> Result<(), String> {
        Dataset::open(&self.data).map(|_| ()).map_err(|error| self.place(&error.to_string()))
    }

    fn place(&self, message: &str) -> String {
        message.replace(&self.data.display().to_string(), "DIR")
    }

    fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let path = self.data.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        edit(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }

    /// Changes a shard's file and makes the manifest agree, as a wrong program would.
    fn edit_consistently(&mut self, shard: usize, ending: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let name = format!("{}.{ending}", self.manifest.shards[shard].name);
        self.edit(&name, edit);
        let record = record_of(&self.data.join(name));
        self.manifest.shards[shard].files.insert(ending.to_owned(), record);
        self.write_manifest();
    }

    fn write_manifest(&self) {
        std::fs::write(self.data.join("manifest.json"), self.manifest.to_bytes()).unwrap();
    }
}

fn record_of(path: &Path) -> FileRecord {
    let bytes = std::fs::read(path).unwrap();
    FileRecord { bytes: bytes.len() as u64, blake3: blake3::hash(&bytes).to_hex().to_string() }
}

#[test]
fn a_sound_dataset_passes_and_is_counted() {
    let sound = sound();
    let report = sound.verify().unwrap();
    assert_eq!(report.id, sound.manifest.id());
    assert_eq!(report.files as usize, 1 + 3 + 4 * sound.manifest.shards.len());
    assert_eq!((report.documents, report.warnings.len()), (146, 0));
    assert_eq!(report.tokens, sound.manifest.languages.values().map(|counts| counts.tokens).sum::<u64>());
}

#[test]
fn every_flipped_byte_is_found() {
    let sound = sound();
    let mut files: Vec<PathBuf> = support::contents(&sound.data).into_keys().collect();
    files.retain(|name| name != Path::new("manifest.json"));
    assert!(files.len() > 15);
    for (i, name) in files.iter().enumerate() {
        let name = name.to_str().unwrap();
        let len = std::fs::metadata(sound.data.join(name)).unwrap().len() as usize;
        for at in [0, len * (i % 7 + 1) / 9, len - 1] {
            sound.edit(name, |bytes| bytes[at] ^= 1 << (i % 8));
            let message = sound.verify().unwrap_err();
            assert!(message.starts_with(&format!("DIR/{name}: its BLAKE3 is ")), "{message}");
            assert!(message.contains("its content changed: copy it again, or prepare the data again"));
            sound.edit(name, |bytes| bytes[at] ^= 1 << (i % 8));
        }
    }
    assert!(sound.verify().is_ok());
}

#[test]
fn cut_grown_and_missing_files_are_refused_at_once() {
    for name in
        ["shard-00001.bin", "shard-00001.idx", "shard-00001.bin.index", "shard-00001.parquet", "token_bytes.bin"]
    {
        let sound = sound();
        let len = std::fs::metadata(sound.data.join(name)).unwrap().len();
        sound.edit(name, |bytes| bytes.truncate(bytes.len() - 1));
        let expected = format!(
            "DIR/{name}: has {} bytes, the manifest says {len}; it was cut or replaced: copy it again, or prepare the data again",
            len - 1
        );
        assert_eq!(sound.open().unwrap_err(), expected);
        assert_eq!(sound.verify().unwrap_err(), expected);
        sound.edit(name, |bytes| bytes.extend([0, 0]));
        assert!(sound.open().unwrap_err().contains(&format!("has {} bytes", len + 1)));
        std::fs::remove_file(sound.data.join(name)).unwrap();
        let expected = format!("DIR/{name}: is missing; copy it again, or prepare the data again");
        assert_eq!(sound.open().unwrap_err(), expected);
        assert_eq!(sound.verify().unwrap_err(), expected);
    }
}

#[test]
fn all_damage_is_listed_not_only_the_first() {
    let sound = sound();
    sound.edit("shard-00000.bin", |bytes| bytes[3] ^= 1);
    std::fs::remove_file(sound.data.join("shard-00002.idx")).unwrap();
    std::fs::remove_file(sound.data.join("tokenizer/tokenizer.json")).unwrap();
    let message = sound.verify().unwrap_err();
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 3, "{message}");
    assert!(lines[0].starts_with("DIR/tokenizer/tokenizer.json: is missing"));
    assert!(lines[1].starts_with("DIR/shard-00000.bin: its BLAKE3"));
    assert!(lines[2].starts_with("DIR/shard-00002.idx: is missing"));
}

#[test]
fn a_surplus_file_is_a_warning() {
    let sound = sound();
    std::fs::write(sound.data.join("shard-00099.bin"), "x").unwrap();
    for companion in ["stats.json", "inputs.json", "quarantine.jsonl", "DATACARD.md"] {
        std::fs::write(sound.data.join(companion), "{}").unwrap();
    }
    let warnings: Vec<String> = sound.verify().unwrap().warnings.iter().map(|warning| sound.place(warning)).collect();
    assert_eq!(warnings, ["DIR/shard-00099.bin: is not named by the manifest; remove it if nothing else needs it"]);
}

#[test]
fn a_wrong_tokenizer_is_named_with_both_digests() {
    let mut sound = sound();
    let dataset = Dataset::open(&sound.data).unwrap();
    let found = sound.manifest.tokenizer.sha256.clone();
    dataset.expect_tokenizer(&found).unwrap();
    let message = sound.place(&dataset.expect_tokenizer("abc").unwrap_err().to_string());
    assert_eq!(
        message,
        format!(
            "DIR: was made with the tokenizer {found}, this run uses abc; prepare the data with the run's tokenizer, or train \
             with the dataset's"
        )
    );
    dataset.expect_vocab(420).unwrap();
    assert_eq!(
        sound.place(&dataset.expect_vocab(419).unwrap_err().to_string()),
        "DIR: has token ids up to 419, the model's vocabulary has 419; set vocab_size to 420 or more, or prepare the data \
         with the model's tokenizer"
    );
    let path = sound.data.join("tokenizer/tokenizer.json");
    let changed = std::fs::read_to_string(&path).unwrap().replace("\"truncation\": null", "\"truncation\":  null");
    std::fs::write(&path, changed).unwrap();
    sound.manifest.tokenizer.files.insert("tokenizer.json".into(), record_of(&path));
    sound.write_manifest();
    let message = sound.verify().unwrap_err();
    assert!(message.starts_with("DIR/tokenizer/tokenizer.json: is another tokenizer: its SHA-256 is "), "{message}");
    assert!(message.contains(&format!("the manifest says {found}; its files do not belong together")), "{message}");
}

#[test]
fn files_that_contradict_each_other_are_found_though_every_digest_is_right() {
    let mut sound = sound();
    sound.edit_consistently(0, "bin", |bytes| bytes[0..2].copy_from_slice(&[255, 255]));
    assert_eq!(
        sound.verify().unwrap_err(),
        "DIR/shard-00000.bin: token 0 is 65535, outside the vocabulary of 420; the file belongs to another tokenizer: \
         prepare the data again"
    );
    let mut sound = self::sound();
    let end = 2 * (std::fs::read(sound.data.join("shard-00000.bin.index")).unwrap()[0] as usize - 1);
    sound.edit_consistently(0, "bin", |bytes| bytes[end..end + 2].copy_from_slice(&[50, 0]));
    assert_eq!(
        sound.verify().unwrap_err(),
        "DIR/shard-00000.bin: ends document 0 with token 50, the manifest says 1; its files do not belong together: copy all \
         of them again, or prepare the data again"
    );
    let mut sound = self::sound();
    sound.edit_consistently(0, "bin.index", |bytes| bytes[0] -= 1);
    assert!(sound.verify().unwrap_err().starts_with("DIR/shard-00000.idx: does not bound the same documents"));
    let mut sound = self::sound();
    sound.edit_consistently(0, "bin.index", |bytes| bytes.copy_within(8..16, 0));
    let message = sound.verify().unwrap_err();
    assert!(message.starts_with("DIR/shard-00000.bin.index: ends document 1 at token "), "{message}");
    let mut sound = self::sound();
    let last = std::fs::metadata(sound.data.join("shard-00000.bin.index")).unwrap().len() as usize - 8;
    sound.edit_consistently(0, "bin.index", |bytes| bytes[last] ^= 1);
    assert!(sound.open().unwrap_err().starts_with("DIR/shard-00000.bin.index: ends the last document at token "));
    let mut sound = self::sound();
    sound.edit_consistently(0, "idx", |bytes| bytes[17] = 4);
    assert_eq!(
        sound.open().unwrap_err(),
        "DIR/shard-00000.idx: has tokens of type 4, the manifest says uint16 (type 8); its files do not belong together: \
         copy all of them again, or prepare the data again"
    );
    let mut sound = self::sound();
    let other = std::fs::read(sound.data.join("shard-00001.parquet")).unwrap();
    sound.edit_consistently(4, "parquet", |bytes| *bytes = other);
    assert!(sound.verify().unwrap_err().contains(" rows, the shard has "));
}

#[test]
fn reading_damaged_bounds_never_panics() {
    let sound = sound();
    let len = std::fs::metadata(sound.data.join("shard-00001.bin.index")).unwrap().len() as usize;
    let mut opened = 0;
    for at in 0..len {
        sound.edit("shard-00001.bin.index", |bytes| bytes[at] ^= 0x55);
        if let Ok(dataset) = Dataset::open(&sound.data) {
            opened += 1;
            for component in dataset.train() {
                for row in 0..component.num_rows(30) {
                    let window = component.row(row, 30).unwrap();
                    assert!(window.ids.len() <= 31);
                }
                (0..component.num_documents()).for_each(|i| assert!(component.document(i).unwrap().len() < 10_000));
            }
            let dataset = Arc::new(dataset);
            let order = Order::new(&dataset.streams(30), &MixtureSpec::default(), 100, 1).unwrap();
            Loader::new(dataset, order, 30).rows(0..100).unwrap();
        }
        sound.edit("shard-00001.bin.index", |bytes| bytes[at] ^= 0x55);
    }
    assert!(opened > len / 2, "{opened} of {len}");
}

#[test]
fn a_wrong_type_in_the_manifest_is_refused() {
    let mut sound = sound();
    sound.manifest.dtype = Dtype::Uint32;
    sound.write_manifest();
    assert_eq!(
        sound.open().unwrap_err(),
        "DIR/manifest.json: has tokens of type uint32, which a vocabulary of 420 does not have; restore the file from a copy, \
         or prepare the data again"
    );
}

#[test]
fn a_stop_ends_a_check() {
    let sound = sound();
    assert!(matches!(verify(&sound.data, &|_| {}, &AtomicBool::new(true)), Err(DataError::Stopped)));
    let last = std::cell::Cell::new((0, 1));
    verify(&sound.data, &|progress| last.set((progress.bytes, progress.total_bytes)), &NEVER).unwrap();
    assert_eq!(last.get().0, last.get().1);
}

#[test]
fn the_tokenizer_of_another_run_is_not_taken_for_ours() {
    let sound = sound();
    let dir = tempfile::tempdir().unwrap();
    let same = tokenizer(&dir.path().join("tokenizer"));
    Dataset::open(&sound.data).unwrap().expect_tokenizer(same.digest()).unwrap();
}
