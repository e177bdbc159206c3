//! A model in Mistral's own layout is the same model, and comes back with every bit.

use std::path::Path;

use crate::hub_directory::{self, model, shared};
use burn::tensor::Device;
use data_pipeline::tokenizer::Tokenizer;
use data_pipeline::tokenizer::alphabet::byte_to_char;
use data_pipeline::tokenizer::pattern::PATTERN;
use model_zoo::WeightDtype;
use serde_json::{Map, Value, json};
use trainer::hub::{ExportOptions, export as export_hub, import as import_hub};
use trainer::mistral::{export, import, is_layout, tekken_from_hub, tekken_to_hub, unpack_tokenizer};
use trainer::tensor_file::TensorFile;

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn options<'a>(out: &'a Path, tokenizer: &'a Path, end_of_turn: &'a [u32]) -> ExportOptions<'a> {
    ExportOptions {
        out,
        tokenizer,
        dtype: WeightDtype::F32,
        max_shard_bytes: 1 << 30,
        end_of_turn,
        chat_template: None,
    }
}

#[test]
fn hub_to_mistral_to_hub_keeps_every_bit() {
    let Some(shared) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    for name in ["mistral", "llama", "mixtral"] {
        let hub = shared.join("fixtures").join(name).join("hf");
        let first = import_hub(&hub, &Device::flex()).unwrap();
        let (layout, back) = (dir.path().join(format!("{name}-mistral")), dir.path().join(format!("{name}-hub")));
        let ends = first.generation.eos_token_ids.clone();
        let report =
            export(&first.model, &first.params, &options(&layout, &hub, &ends), &Device::flex(), &|_| ()).unwrap();
        assert_eq!(report.logits.largest, 0.0, "{name}");
        assert!(is_layout(&layout) && !is_layout(&hub));
        let params = json_of(&layout.join("params.json"));
        assert_eq!(params["n_heads"], json!(4));
        assert_eq!(params["sliding_window"].as_u64(), if name == "mistral" { Some(16) } else { None });
        assert!(layout.join(report.tokenizer).is_file());

        let second = import(&layout, &Device::flex()).unwrap();
        let options = options(&back, &hub, &ends);
        export_hub(&second.model, &second.params, &options, &Device::flex(), &|_| ()).unwrap();
        let last = import_hub(&back, &Device::flex()).unwrap();
        for (index, spec) in first.params.specs().iter().enumerate() {
            let (a, b) = (first.params.to_host(index).unwrap(), last.params.to_host(index).unwrap());
            assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}: {}", spec.name);
        }
        if name == "mistral" {
            assert_eq!(first.model.config(), last.model.config());
        }
    }
}

/// Rows of queries stand as in Meta's code: the two halves of a head take turns.
#[test]
fn names_and_rows_are_those_of_the_layout() {
    let Some(shared) = shared() else { return };
    let hub = shared.join("fixtures/mistral/hf");
    let first = import_hub(&hub, &Device::flex()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("m");
    export(&first.model, &first.params, &options(&out, &hub, &[]), &Device::flex(), &|_| ()).unwrap();
    let (ours, theirs) = (
        TensorFile::open(&out.join("consolidated.safetensors")).unwrap(),
        TensorFile::open(&hub.join("model.safetensors")).unwrap(),
    );
    let names = ours.names();
    for name in ["tok_embeddings.weight", "norm.weight", "output.weight", "layers.1.feed_forward.w2.weight"] {
        assert!(names.contains(&name.to_owned()), "{name}");
    }
    let (q, hub_q) = (
        ours.floats("layers.0.attention.wq.weight").unwrap(),
        theirs.floats("model.layers.0.self_attn.q_proj.weight").unwrap(),
    );
    let (width, head_dim) = (64, 32);
    let row = |values: &[f32], row: usize| values[row * width..(row + 1) * width].to_vec();
    for head in 0..4 {
        for pair in 0..head_dim / 2 {
            let at = head * head_dim;
            assert_eq!(row(&q, at + 2 * pair), row(&hub_q, at + pair));
            assert_eq!(row(&q, at + 2 * pair + 1), row(&hub_q, at + pair + head_dim / 2));
        }
    }
    assert_eq!(
        ours.floats("layers.0.feed_forward.w1.weight").unwrap(),
        theirs.floats("model.layers.0.mlp.gate_proj.weight").unwrap()
    );
}

/// A byte-level tokenizer whose special tokens come first and whose bytes stand in order.
fn ordered_tokenizer(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|pad|>", "<|im_start|>", "<|im_end|>"];
    let spell = |bytes: &[u8]| -> String { bytes.iter().map(|byte| byte_to_char(*byte)).collect() };
    let mut vocab: Map<String, Value> =
        specials.iter().enumerate().map(|(id, token)| ((*token).into(), json!(id))).collect();
    for byte in 0..=255_u8 {
        vocab.insert(spell(&[byte]), json!(specials.len() + usize::from(byte)));
    }
    let mut merges = Vec::new();
    for (left, right) in
        [("s", "s"), ("a", "l"), (" ", "al"), ("3", "l"), ("1", "9"), ("ss", "a"), ("9", "9"), ("\u{d8}", "\u{a7}")]
    {
        // The last pair is the two bytes of an Arabic letter.
        let bytes = |text: &str| -> Vec<u8> { text.chars().map(|c| c as u32 as u8).collect() };
        let (left, right) = (bytes(left), bytes(right));
        vocab.insert(spell(&[left.clone(), right.clone()].concat()), json!(vocab.len()));
        merges.push(json!(format!("{} {}", spell(&left), spell(&right))));
    }
    let added: Vec<Value> = specials
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": false}, byte_level]},
        "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges},
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let config = json!({"bos_token": specials[0], "eos_token": specials[1], "pad_token": specials[2]});
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
}

#[test]
fn tekken_files_give_every_text_the_same_ids() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("ordered");
    ordered_tokenizer(&folder);
    let hub = json_of(&folder.join("tokenizer.json"));
    let roles = json_of(&folder.join("tokenizer_config.json")).as_object().cloned().unwrap();
    let tekken = tekken_from_hub(&hub, &roles).unwrap();
    assert_eq!(tekken["special_tokens"][0]["token_str"], json!("<s>"));
    assert_eq!(tekken["config"]["pattern"], json!(PATTERN));
    assert_eq!((&tekken["vocab"][97]["token_bytes"], &tekken["vocab"][97]["token_str"]), (&json!("YQ=="), &json!("a")));
    // A byte of a longer character is no text.
    assert_eq!(tekken["vocab"][0xd8]["token_str"], Value::Null);
    if let Some(kept) = std::env::var_os("JAZARI_KEEP_TEKKEN") {
        std::fs::write(Path::new(&kept).join("tekken.json"), tekken.to_string()).unwrap();
        std::fs::copy(folder.join("tokenizer.json"), Path::new(&kept).join("tokenizer.json")).unwrap();
    }
    std::fs::write(folder.join("tekken.json"), tekken.to_string()).unwrap();
    let back = dir.path().join("back");
    std::fs::create_dir(&back).unwrap();
    unpack_tokenizer(&folder, &back).unwrap();
    let (original, found) = (Tokenizer::open(&folder).unwrap(), Tokenizer::open(&back).unwrap());
    for text in ["salam 3likom, f 1999!", "السلام عليكم", " al  als\n\nssa 99", ""] {
        assert_eq!(original.encode(text, false).unwrap(), found.encode(text, false).unwrap(), "{text:?}");
        assert_eq!(found.decode(&found.encode(text, false).unwrap(), false).unwrap(), text);
    }
    assert_eq!((found.bos(), found.eos(), found.pad()), (Some(0), Some(1), Some(2)));
}

#[test]
fn what_has_no_form_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    hub_directory::tokenizer(dir.path());
    let hub = json_of(&dir.path().join("tokenizer.json"));
    let error = tekken_from_hub(&hub, &Map::new()).unwrap_err();
    assert!(error.contains("special tokens must have the first ids, but \"<|begin_of_text|>\" has id 256"), "{error}");
    for damaged in [
        json!({}),
        json!({"config": {"pattern": ".", "default_vocab_size": 9, "default_num_special_tokens": 10}, "vocab": []}),
    ] {
        assert!(tekken_to_hub(&damaged).is_err());
    }
    // The weights are written all the same, with the tokenizer as it is.
    let (model, params) = model(false);
    let out = dir.path().join("out");
    let report = export(&model, &params, &options(&out, dir.path(), &[]), &Device::flex(), &|_| ()).unwrap();
    assert_eq!(report.tokenizer, "tokenizer.json");
    assert!(report.warnings[0].starts_with("no tekken.json was written (special tokens must have the first ids"));
    // A surplus tensor is named.
    let path = out.join("params.json");
    let mut params = json_of(&path);
    params["n_layers"] = json!(1);
    std::fs::write(&path, params.to_string()).unwrap();
    let error = import(&out, &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("\"layers.1.attention.wk.weight\""), "{error}");
    params["yarn"] = json!({"factor": 2});
    std::fs::write(&path, params.to_string()).unwrap();
    assert!(import(&out, &Device::flex()).unwrap_err().to_string().contains("key \"yarn\" is set"));
}

#[test]
fn a_tokenizer_of_ours_becomes_tekken_and_the_rows_move_with_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("ours");
    std::fs::create_dir_all(&folder).unwrap();
    let text = "salam labas 3lik, wach nta mzyan? salam 3lik khouya, labas labas";
    let document = data_pipeline::document::Document {
        id: "0".repeat(32),
        text: text.into(),
        lang: "ary_Latn".into(),
        source: "s".into(),
        licence: "MIT".into(),
        url: None,
        notes: None,
    };
    // A row for each token, as a model has that was trained with it.
    let settings = data_pipeline::tokenizer::TrainConfig { vocab_size: 280, ..Default::default() };
    let mut config: Value = serde_json::from_str(&model(false).0.config().to_checkpoint_json()).unwrap();
    config["vocab_size"] = json!(280);
    let model = model_zoo::Model::new(&model_zoo::ModelConfig::from_hub_json(&config.to_string()).unwrap()).unwrap();
    let params = model_zoo::Params::init(model.specs(), 5, &Device::flex());
    let sizes = [("ary_Latn".to_owned(), text.len() as u64)].into();
    let mut trainer = data_pipeline::tokenizer::TokenizerTrainer::new(&settings, &sizes).unwrap();
    trainer.add(&document);
    let trained = trainer.finish(&|_| {}, &std::sync::atomic::AtomicBool::new(false)).unwrap();
    trained.files.iter().for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes).unwrap());
    let out = dir.path().join("out");
    let report = export(&model, &params, &options(&out, &folder, &[]), &Device::flex(), &|_| ()).unwrap();
    assert_eq!((report.tokenizer, report.logits.largest), ("tekken.json", 0.0));
    let tekken = json_of(&out.join("tekken.json"));
    assert_eq!(tekken["vocab"][97]["token_bytes"], json!("YQ=="));
    // The row of "a" follows it to its new id.
    let ours = Tokenizer::open(&folder).unwrap();
    let specials = tekken["special_tokens"].as_array().unwrap().len();
    let name = "model.embed_tokens.weight";
    let index = params.specs().iter().position(|spec| spec.name == name).unwrap();
    let rows = params.to_host(index).unwrap();
    let width = params.specs()[index].shape[1];
    let written = TensorFile::open(&out.join("consolidated.safetensors")).unwrap();
    let written = written.floats("tok_embeddings.weight").unwrap();
    for byte in [b'a', b' ', 0xd8] {
        let old = ours.id_of(&byte_to_char(byte).to_string()).unwrap() as usize;
        let new = specials + usize::from(byte);
        assert_ne!(new, old);
        assert_eq!(written[new * width..][..width], rows[old * width..][..width]);
    }
}
