//! Trained tokenizers: the same bytes every time, exact round trips, files that the library reads.

use std::collections::{BTreeMap, HashMap};

use crate::support::{self, document, documents, shared, train, write_files};
use data_pipeline::document::Document;
use data_pipeline::tokenizer::alphabet::byte_to_char;
use data_pipeline::tokenizer::eval::evaluate;
use data_pipeline::tokenizer::files::SPECIAL_TOKENS;
use data_pipeline::tokenizer::pattern;
use data_pipeline::tokenizer::{Tokenizer, TokenizerError, TrainConfig};
use proptest::prelude::*;
use serde_json::Value;

/// Rows of two sources that hold both scripts of Darija, Tifinagh and French.
fn corpus(limit: usize) -> Vec<Document> {
    let Some(root) = shared("corpora") else { return Vec::new() };
    let mut texts = Vec::new();
    for source in ["doda-mit", "android-l10n", "hassaniya-variants", "gettext-l10n"] {
        let rows = std::fs::read_to_string(root.join(source).join("data.jsonl")).unwrap();
        for row in rows.lines().take(limit) {
            let row: Value = serde_json::from_str(row).unwrap();
            let lang = format!("{}_{}", row["lang"].as_str().unwrap(), row["script"].as_str().unwrap());
            texts.push(document(&lang, source, row["text"].as_str().unwrap()));
        }
    }
    texts
}

#[test]
fn training_on_real_text_is_deterministic_and_round_trips() {
    let texts = corpus(4_000);
    if texts.is_empty() {
        return;
    }
    let config = TrainConfig { vocab_size: 3_000, ..TrainConfig::default() };
    let first = train(&texts, &config);
    let reversed: Vec<Document> = texts.iter().rev().cloned().collect();
    assert_eq!(first.files, train(&reversed, &config).files);
    assert_eq!(first.report.vocab_size, 3_000);

    let dir = tempfile::tempdir().unwrap();
    write_files(&first, dir.path());
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 3_000);
    let languages = evaluate(&tokenizer, texts.iter().cloned()).unwrap();
    assert!(languages.len() > 8);
    for (lang, figures) in &languages {
        assert_eq!((figures.failed_round_trips, figures.unknown), (0, 0), "{lang}: {:?}", figures.examples);
        assert!(figures.fertility() < 5.0 && figures.bytes_per_token() > 1.5, "{lang}: {figures:?}");
    }
    let mut encoder = tokenizer.document_encoder();
    for text in texts.iter().step_by(7) {
        let mut ids = Vec::new();
        encoder.encode(&text.text, &mut ids).unwrap();
        assert_eq!(ids, tokenizer.encode(&text.text, false).unwrap(), "{:?}", text.text);
    }
}

/// The `tokenizers` crate's own trainer agrees where hash order has no say.
#[test]
fn the_merges_are_those_of_the_library() {
    let texts = corpus(600);
    if texts.is_empty() {
        return;
    }
    let config = TrainConfig { vocab_size: 700, temperature: 1.0, max_repeats: 1.0, ..TrainConfig::default() };
    let ours: Value = serde_json::from_slice(&train(&texts, &config).files["tokenizer.json"]).unwrap();

    let mut words: HashMap<String, u64> = HashMap::new();
    for text in &texts {
        pattern::split(&text.text, |word| {
            *words.entry(word.bytes().map(byte_to_char).collect()).or_default() += 1;
        });
    }
    let mut trainer = tokenizers::models::bpe::BpeTrainer::builder()
        .vocab_size(700)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet((0..=255).map(byte_to_char).collect())
        .special_tokens(SPECIAL_TOKENS.iter().map(|token| tokenizers::AddedToken::from(*token, true)).collect())
        .build();
    let lines = words.iter().flat_map(|(word, &count)| std::iter::repeat_n(word, count as usize));
    tokenizers::Trainer::feed(&mut trainer, lines, |word| Ok(vec![word.to_owned()])).unwrap();
    let mut model = tokenizers::models::bpe::BPE::default();
    tokenizers::Trainer::train(&trainer, &mut model).unwrap();
    let theirs: Value = serde_json::to_value(&model).unwrap();
    assert_eq!(ours["model"]["vocab"], theirs["vocab"]);
    let spelled: Vec<String> = theirs["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()))
        .collect();
    assert_eq!(ours["model"]["merges"], Value::from(spelled));
}

#[test]
fn the_files_say_what_other_readers_need() {
    let trained = train(&documents("ary_Latn", "a", 50), &TrainConfig { vocab_size: 300, ..TrainConfig::default() });
    let json = |name: &str| -> Value { serde_json::from_slice(&trained.files[name]).unwrap() };
    let config = json("tokenizer_config.json");
    assert_eq!(config["tokenizer_class"], "PreTrainedTokenizerFast");
    assert_eq!((&config["bos_token"], &config["eos_token"]), (&"<|begin_of_text|>".into(), &"<|end_of_text|>".into()));
    assert_eq!(config["added_tokens_decoder"]["4"]["content"], "<|im_end|>");
    assert_eq!(config["added_tokens_decoder"].as_object().unwrap().len(), 16);
    assert_eq!(json("special_tokens_map.json")["pad_token"], "<|pad|>");
    let tokenizer = json("tokenizer.json");
    assert_eq!(tokenizer["model"]["vocab"].as_object().unwrap().len(), 300);
    assert_eq!(tokenizer["model"]["merges"].as_array().unwrap().len(), 300 - 272);
    assert_eq!(tokenizer["normalizer"], Value::Null);

    // What the library itself would write for the same tokenizer, but for the spelling of the merges.
    let library = tokenizers::Tokenizer::from_bytes(&trained.files["tokenizer.json"]).unwrap();
    let mut rewritten: Value = serde_json::from_str(&library.to_string(false).unwrap()).unwrap();
    let merges = rewritten["model"]["merges"].as_array().unwrap().iter();
    let spelled: Vec<String> =
        merges.map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect();
    rewritten["model"]["merges"] = Value::from(spelled);
    assert_eq!(tokenizer, rewritten);
}

#[test]
fn special_tokens_mean_something_in_prompts_and_nothing_in_documents() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = support::tokenizer(dir.path());
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (Some(0), Some(1), Some(2)));
    assert_eq!(tokenizer.document_bos(), Some(0));
    let text = "salam<|end_of_text|>";
    let prompt = tokenizer.encode(text, true).unwrap();
    assert_eq!((prompt.first(), prompt.last()), (Some(&0), Some(&1)));
    let mut spelled = Vec::new();
    tokenizer.document_encoder().encode(text, &mut spelled).unwrap();
    assert!(spelled.iter().all(|&id| id > 15), "{spelled:?}");
    assert_eq!(tokenizer.decode(&spelled, true).unwrap(), text);
    let bytes: usize = spelled.iter().map(|&id| usize::from(tokenizer.token_bytes()[id as usize])).sum();
    assert_eq!(bytes, text.len());
}

#[test]
fn files_that_are_no_tokenizer_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let place = dir.path().display().to_string();
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Tokenizer::open(dir.path()).map(|_| ()).unwrap_err().to_string().replace(&place, "DIR")
    };
    assert!(open(b"{").starts_with("DIR/tokenizer.json: is no tokenizer (EOF while parsing"));
    assert!(open(b"{}").starts_with("DIR/tokenizer.json: "));
    let trained = train(&documents("ary_Latn", "a", 50), &TrainConfig { vocab_size: 300, ..TrainConfig::default() });
    let good = String::from_utf8(trained.files["tokenizer.json"].clone()).unwrap();
    assert_eq!(
        open(good.replace("\"dropout\": null", "\"dropout\": 0.1").as_bytes()),
        "DIR/tokenizer.json: its BPE drops merges at random (`dropout`), so the same text has many encodings; \
         use a byte-level or SentencePiece BPE or Unigram tokenizer"
    );
    let wordlevel =
        r#"{"version":"1.0","added_tokens":[],"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}"#;
    assert_eq!(
        open(wordlevel.as_bytes()),
        "DIR/tokenizer.json: a word list cannot spell unknown words; use a byte-level or SentencePiece BPE or Unigram tokenizer"
    );
    let far = good.replace("\"<|pad|>\": 2,", "\"<|pad|>\": 4000000000,");
    assert!(
        open(far.as_bytes()).contains("id 4000000000 is far outside a vocabulary of 300"),
        "{}",
        open(far.as_bytes())
    );
    std::fs::write(dir.path().join("tokenizer_config.json"), r#"{"eos_token": "<|done|>"}"#).unwrap();
    assert_eq!(
        open(good.as_bytes()),
        "DIR/tokenizer_config.json: eos_token is `<|done|>`, which is not in the vocabulary; correct it, or add the token"
    );
    std::fs::File::create(&path).unwrap().set_len(65 << 20).unwrap();
    let message = Tokenizer::open(&path).map(|_| ()).unwrap_err().to_string().replace(&place, "DIR");
    assert_eq!(
        message,
        "DIR/tokenizer.json: 68157440 bytes are more than the 67108864 a tokenizer file may have; check that it is a \
         tokenizer.json"
    );
    assert!(matches!(Tokenizer::open(&dir.path().join("no")), Err(TokenizerError::Io { .. })));
}

#[test]
fn saved_cutting_lengths_do_not_cut_documents() {
    let dir = tempfile::tempdir().unwrap();
    let trained = train(&documents("ary_Latn", "a", 50), &TrainConfig { vocab_size: 300, ..TrainConfig::default() });
    write_files(&trained, dir.path());
    let good = String::from_utf8(trained.files["tokenizer.json"].clone()).unwrap();
    let cutting = r#""truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}"#;
    std::fs::write(dir.path().join("tokenizer.json"), good.replace("\"truncation\": null", cutting)).unwrap();
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    assert!(tokenizer.encode("salam labas 3lik wach kayn chi jdid", true).unwrap().len() > 7);
}

#[test]
fn ids_outside_the_vocabulary_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = support::tokenizer(dir.path());
    assert_eq!(
        tokenizer.decode(&[5, 420], false).unwrap_err().to_string(),
        "token id 420 is outside the tokenizer's vocabulary of 420; the ids come from another tokenizer"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_text_comes_back(texts in proptest::collection::vec("(\\PC|[ء-ي ]|[a-z0-9 ]|\\s|[ⴰ-ⵥ]|<\\|pad\\|>){0,60}", 1..4)) {
        static TOKENIZER: std::sync::OnceLock<Tokenizer> = std::sync::OnceLock::new();
        let tokenizer = TOKENIZER.get_or_init(|| support::tokenizer(tempfile::tempdir().unwrap().path()));
        let mut encoder = tokenizer.document_encoder();
        let mut total: BTreeMap<bool, usize> = BTreeMap::new();
        for text in &texts {
            let mut ids = Vec::new();
            encoder.encode(text, &mut ids).unwrap();
            prop_assert_eq!(&tokenizer.decode(&ids, false).unwrap(), text);
            if !text.contains("<|") {
                prop_assert_eq!(&ids, &tokenizer.encode(text, false).unwrap());
            }
            *total.entry(text.is_empty()).or_default() += ids.len();
        }
        prop_assert_eq!(total.get(&true).copied().unwrap_or(0), 0);
    }
}
