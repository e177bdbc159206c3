//! Writing a dataset: the layout that other trainers read, the same bytes for any number of threads.

use std::sync::atomic::AtomicBool;

use crate::support::{self, contents, dataset, documents, groups, meta, tokenizer, try_write, write_files};
use data_pipeline::DataError;
use data_pipeline::dataset::{Dataset, Group, WriteProgress, write_dataset};
use data_pipeline::document::Document;
use data_pipeline::manifest::{Manifest, Split};
use data_pipeline::shard::format::Dtype;
use data_pipeline::tokenizer::Tokenizer;

fn expected_ids(tokenizer: &Tokenizer, document: &Document) -> Vec<u32> {
    let mut ids = vec![tokenizer.bos().unwrap()];
    tokenizer.document_encoder().encode(&document.text, &mut ids).unwrap();
    ids.push(tokenizer.eos().unwrap());
    ids
}

#[test]
fn every_document_is_found_where_the_indices_say() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, tokenizer) = dataset(dir.path());
    let data = dir.path().join("data");
    let (shared, mut at) = (groups(), (0, 0));
    assert!(manifest.shards.len() > 4, "{} shards", manifest.shards.len());
    for shard in &manifest.shards {
        let file = |ending: &str| std::fs::read(data.join(format!("{}.{ending}", shard.name))).unwrap();
        let tokens: Vec<u32> =
            file("bin").as_chunks::<2>().0.iter().map(|b| u32::from(u16::from_le_bytes(*b))).collect();
        let ends: Vec<u64> = file("bin.index").as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
        let index = file("idx");
        let count = ends.len();
        let i32_at = |i: usize| i32::from_le_bytes(index[34 + 4 * i..38 + 4 * i].try_into().unwrap());
        let i64_at = |i: usize| {
            let at = 34 + 4 * count + 8 * i;
            i64::from_le_bytes(index[at..at + 8].try_into().unwrap())
        };
        let mut start = 0;
        for (i, &end) in ends.iter().enumerate() {
            if at.1 == shared[at.0].3.len() {
                at = (at.0 + 1, 0);
            }
            let (split, lang, source, documents) = &shared[at.0];
            assert_eq!((shard.split, shard.lang.as_str(), shard.source.as_str()), (*split, *lang, *source));
            let ids = expected_ids(&tokenizer, &documents[at.1]);
            assert_eq!(tokens[start as usize..end as usize], ids);
            assert_eq!((i32_at(i), i64_at(i), i64_at(count + i)), (ids.len() as i32, 2 * start as i64, i as i64));
            (start, at.1) = (end, at.1 + 1);
        }
        assert_eq!(i64_at(2 * count), count as i64);
        assert_eq!((start, shard.tokens, shard.documents), (tokens.len() as u64, tokens.len() as u64, count as u64));
        assert!(start >= 400 || at.1 == shared[at.0].3.len(), "a shard ends early");
    }
    assert_eq!(at, (3, 9));
}

#[test]
fn sizes_add_up_by_language_and_licence() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, tokenizer) = dataset(dir.path());
    assert_eq!(
        (manifest.tokenizer.bos_id, manifest.tokenizer.eos_id, manifest.tokenizer.pad_id),
        (Some(0), 1, Some(2))
    );
    assert_eq!(manifest.tokenizer.sha256, tokenizer.digest());
    assert_eq!((manifest.dtype, manifest.seed, manifest.config_digest.as_str()), (Dtype::Uint16, 5, "c0ffee"));
    assert_eq!(manifest.languages["ary_Latn"].documents, 97);
    assert_eq!(manifest.licences["MIT"].documents, 7);
    assert_eq!(manifest.licences["CC0-1.0"].documents, 139);
    let bytes = |documents: &[Document]| documents.iter().map(|d| d.text.len() as u64).sum::<u64>();
    assert_eq!(manifest.counts(Split::Validation).text_bytes, bytes(&documents("zgh_Tfng", "a", 9)));
    let tokens: u64 = manifest.languages.values().map(|counts| counts.tokens).sum();
    let both = manifest.counts(Split::Train).tokens + manifest.counts(Split::Validation).tokens;
    assert_eq!((tokens, manifest.licences.values().map(|counts| counts.tokens).sum::<u64>()), (both, both));
}

#[test]
fn the_bytes_do_not_depend_on_threads_and_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(&dir.path().join("tokenizer"));
    let mut many = groups();
    many[1].3 = documents("ary_Latn", "a", 6_000);
    let write = |threads: usize| {
        let data = dir.path().join(format!("data-{threads}"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| try_write(&data, &many, &tokenizer, 30_000)).unwrap();
        contents(&data)
    };
    let one = write(1);
    assert!(one.len() > 20);
    assert_eq!(one, write(2));
    assert_eq!(one, write(7));
}

#[test]
fn it_opens_with_the_identity_it_was_written_with() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, tokenizer) = dataset(dir.path());
    let data = dir.path().join("data");
    let dataset = Dataset::open(&data).unwrap();
    assert_eq!(dataset.manifest(), &manifest);
    assert_eq!(dataset.id(), blake3::hash(&std::fs::read(data.join("manifest.json")).unwrap()).to_hex().as_str());
    assert_eq!(dataset.token_bytes(), tokenizer.token_bytes());
    let names: Vec<String> = dataset.train().iter().map(|c| c.name()).collect();
    assert_eq!(names, ["ary_Arab/a", "ary_Latn/a", "ary_Latn/b"]);
    assert_eq!(dataset.validation().len(), 1);
    let all = groups();
    for (component, (_, _, _, documents)) in dataset.train().iter().chain(dataset.validation()).zip(&all) {
        assert_eq!(component.num_documents(), documents.len() as u64);
        for (i, document) in documents.iter().enumerate() {
            let ids = component.document(i as u64).unwrap();
            assert_eq!(ids, expected_ids(&tokenizer, document));
            let facts = component.facts(i as u64).unwrap();
            assert_eq!((&facts.id, &facts.licence, &facts.url), (&document.id, &document.licence, &document.url));
            assert_eq!((facts.text_bytes, facts.tokens), (document.text.len() as u64, ids.len() as u64));
        }
        assert!(matches!(component.document(documents.len() as u64), Err(DataError::OutOfRange { .. })));
    }
    let reopened = Tokenizer::open(&dataset.tokenizer_folder()).unwrap();
    assert_eq!((reopened.digest(), reopened.eos()), (tokenizer.digest(), tokenizer.eos()));
}

#[test]
fn what_cannot_be_written_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(&dir.path().join("tokenizer"));
    let mut twice = groups();
    twice.push((Split::Train, "ary_Latn", "a", documents("ary_Latn", "a", 1)));
    let message = try_write(&dir.path().join("a"), &twice, &tokenizer, 400).unwrap_err().to_string();
    assert_eq!(message, "train documents of ary_Latn/a come in two groups; hand each language and source over once");

    let failing = Group {
        split: Split::Train,
        lang: "ary_Latn".to_owned(),
        source: "a".to_owned(),
        documents: [Err(DataError::Documents("the disk went away".into()))].into_iter(),
    };
    let data = dir.path().join("b");
    std::fs::create_dir(&data).unwrap();
    let never = AtomicBool::new(false);
    let error = write_dataset(&data, [failing], &tokenizer, &meta(400), &|_| {}, &never).unwrap_err();
    assert_eq!(error.to_string(), "the documents cannot be read again: the disk went away");
    assert!(matches!(Manifest::read(&data), Err(DataError::NotADataset { .. })));

    std::fs::write(dir.path().join("tokenizer/tokenizer_config.json"), "{}").unwrap();
    std::fs::remove_file(dir.path().join("tokenizer/special_tokens_map.json")).unwrap();
    let endless = Tokenizer::open(&dir.path().join("tokenizer")).unwrap();
    let message = try_write(&dir.path().join("c"), &groups(), &endless, 400).unwrap_err().to_string();
    assert!(
        message.ends_with(
            "tokenizer.json: names no end-of-text token; put a tokenizer_config.json with `eos_token` beside it"
        ),
        "{message}"
    );
}

#[test]
fn a_stop_leaves_no_manifest_and_progress_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(&dir.path().join("tokenizer"));
    let write = |name: &str, stop: &AtomicBool, observer: &dyn Fn(WriteProgress)| {
        let data = dir.path().join(name);
        std::fs::create_dir(&data).unwrap();
        let groups = groups().into_iter().map(|(split, lang, source, documents)| Group {
            split,
            lang: lang.to_owned(),
            source: source.to_owned(),
            documents: documents.into_iter().map(Ok),
        });
        let result = write_dataset(&data, groups, &tokenizer, &meta(400), observer, stop);
        (result, data.join("manifest.json").exists())
    };
    let (result, manifest) = write("a", &AtomicBool::new(true), &|_| {});
    assert!(matches!(result, Err(DataError::Stopped)) && !manifest);
    let seen = std::cell::RefCell::new(Vec::new());
    let (result, _) =
        write("b", &AtomicBool::new(false), &|progress| seen.borrow_mut().push(progress.counts.documents));
    assert_eq!(*seen.borrow(), [40, 130, 137, 146]);
    assert_eq!(result.unwrap().licences.len(), 2);
}

#[test]
fn large_vocabularies_take_four_bytes_and_no_bos_is_invented() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("tokenizer");
    std::fs::create_dir(&folder).unwrap();
    let trained = support::train(&documents("ary_Latn", "a", 50), &Default::default());
    write_files(&trained, &folder);
    // A token far up makes the vocabulary large; without a post-processor nothing comes before a text.
    let mut json: serde_json::Value = serde_json::from_slice(&trained.files["tokenizer.json"]).unwrap();
    json["post_processor"] = serde_json::Value::Null;
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    (vocab.len()..65_537).for_each(|id| drop(vocab.insert(format!("filler{id}"), id.into())));
    std::fs::write(folder.join("tokenizer.json"), json.to_string()).unwrap();
    let tokenizer = Tokenizer::open(&folder).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.bos(), tokenizer.document_bos()), (65_537, Some(0), None));
    let data = dir.path().join("data");
    let manifest = try_write(&data, &groups(), &tokenizer, 400).unwrap();
    assert_eq!((manifest.dtype, manifest.tokenizer.bos_id), (Dtype::Uint32, None));
    let dataset = Dataset::open(&data).unwrap();
    let first = dataset.train()[0].document(0).unwrap();
    assert!(first[0] > 15 && first.last() == Some(&1));
    let index = std::fs::read(data.join("shard-00000.idx")).unwrap();
    assert_eq!(index[17], 4);
}
