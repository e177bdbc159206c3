//! Makes small Hugging Face directories for tests.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use model_zoo::{LlamaConfig, Model, ModelConfig, Params, RopeConfig, RopeScaling, WeightDtype};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

/// 256 bytes and four special tokens.
pub const VOCAB: usize = 260;
pub const SPECIALS: [(&str, u32); 4] =
    [("<|begin_of_text|>", 256), ("<|end_of_text|>", 257), ("<|pad|>", 258), ("<|eot_id|>", 259)];

pub fn config(tied: bool) -> ModelConfig {
    ModelConfig::Llama(LlamaConfig {
        vocab_size: VOCAB,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 8,
        max_position_embeddings: 64,
        rms_norm_eps: 1e-5,
        rope: RopeConfig { theta: 10_000.0, scaling: RopeScaling::None },
        tie_word_embeddings: tied,
        initializer_range: 0.2,
        bos_token_id: Some(256),
        eos_token_ids: vec![257],
        pad_token_id: Some(258),
    })
}

pub fn model(tied: bool) -> (Model, Params) {
    let model = Model::new(&config(tied)).unwrap();
    let params = Params::init(model.specs(), 5, &Device::flex());
    (model, params)
}

/// A stored tensor: number format, shape, bytes.
pub type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// The tensors of a model as f32, by name.
pub fn tensors(model: &Model, params: &Params) -> BTreeMap<String, Stored> {
    let store = |(index, spec): (usize, &model_zoo::ParamSpec)| {
        let bytes = params.to_host(index).unwrap().iter().flat_map(|value| value.to_le_bytes()).collect();
        (spec.name.clone(), (Dtype::F32, spec.shape.clone(), bytes))
    };
    model.specs().iter().enumerate().map(store).collect()
}

pub fn write_tensors(path: &Path, tensors: &BTreeMap<String, Stored>) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    std::fs::write(path, safetensors::serialize(views, Some(format)).unwrap()).unwrap();
}

/// A directory with `config.json` and `model.safetensors`, after `change`.
pub fn directory(tied: bool, change: impl FnOnce(&mut BTreeMap<String, Stored>)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (model, params) = model(tied);
    let mut stored = tensors(&model, &params);
    change(&mut stored);
    std::fs::write(dir.path().join("config.json"), model.config().to_hub_json(WeightDtype::F32)).unwrap();
    write_tensors(&dir.path().join("model.safetensors"), &stored);
    dir
}

/// A folder with a byte-level tokenizer without merges.
pub fn tokenizer(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let vocab: serde_json::Map<String, Value> =
        byte_characters().into_iter().enumerate().map(|(id, c)| (c.to_string(), json!(id))).collect();
    let added: Vec<Value> = SPECIALS
        .iter()
        .map(|(content, id)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": []},
    });
    std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

/// The printable character that stands for each byte in byte-level vocabularies.
fn byte_characters() -> Vec<char> {
    let printable = |byte: u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 0x100;
    (0..256)
        .map(|byte| {
            let code = if printable(byte) {
                byte
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).unwrap()
        })
        .collect()
}

/// `../shared`, or `None` after a loud line when it is absent.
pub fn shared() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    if path.is_dir() {
        return Some(path);
    }
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED: ../shared is absent");
    None
}
