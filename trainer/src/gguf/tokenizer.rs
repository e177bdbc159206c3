//! Owns a vocabulary as GGUF keys, made of a tokenizer.json and turned back into one; never touches weights.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use data_pipeline::tokenizer::{Spelling, Tokenizer};
use serde_json::{Map, Value as Json, json};

use super::GgufError;
use super::pre_tokenizer::{KNOWN, PreTokenizer, SAMPLE};
use super::read::GgufFile;
use super::types::Value;
use crate::durable::read_text;
use crate::hub::{GenerationConfig, MAX_TOKENIZER_BYTES, PROBE_TEXTS, TOKENIZER_FILE};

/// What an entry is (`enum llama_token_type`).
const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;
const BYTE: i64 = 6;
/// Most characters of an entry whose splits are tried when merges are made of scores.
const MAX_PIECE_CHARS: usize = 256;

/// How a text becomes entries.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Byte-level BPE.
    Bpe {
        /// How a text is cut.
        pre: PreTokenizer,
        /// Pairs joined by a space, the first learned first.
        merges: Vec<String>,
    },
    /// SentencePiece BPE: the pair with the highest score is merged first.
    SentencePiece {
        /// One for each entry.
        scores: Vec<f32>,
        /// Whether a text begins with a space.
        space_prefix: bool,
    },
}

/// A vocabulary as GGUF holds it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Vocabulary {
    pub kind: Kind,
    pub tokens: Vec<String>,
    pub types: Vec<i64>,
    pub add_bos: bool,
    pub add_eos: bool,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub eot: Option<u32>,
    pub pad: Option<u32>,
    pub unknown: Option<u32>,
    pub chat_template: Option<String>,
}

/// A vocabulary made of Hugging Face files, with what the user should know.
pub(super) struct Converted {
    pub vocabulary: Vocabulary,
    pub warnings: Vec<String>,
}

/// Makes the vocabulary of `folder`, filled up to `vocab_size` entries, and chooses the name of its cutting by trying
/// the known ones on text.
///
/// # Errors
/// [`GgufError::Tokenizer`] when llama.cpp has no such tokenizer.
pub(super) fn convert(
    folder: &Path,
    vocab_size: usize,
    generation: &GenerationConfig,
    chat_template: Option<String>,
) -> Result<Converted, GgufError> {
    let path = folder.join(TOKENIZER_FILE);
    let refused = |cause: String| GgufError::Tokenizer { path: path.clone(), cause };
    let text = read_text(&path, MAX_TOKENIZER_BYTES)?;
    let hub: Json = serde_json::from_str(&text).map_err(|error| refused(format!("it is no JSON ({error})")))?;
    let original = Tokenizer::open(&path).map_err(|error| refused(error.to_string()))?;
    let model = hub.get("model").filter(|model| model["type"] == json!("BPE"));
    let model = model.ok_or_else(|| refused("only BPE tokenizers have a form in GGUF that is verified".into()))?;
    let (tokens, types) = entries(&hub, model, vocab_size).map_err(refused)?;
    let merges = merges(model).map_err(refused)?;
    let ends = original.encode("a", true).map_err(|error| refused(error.to_string()))?;
    let mut vocabulary = Vocabulary {
        kind: Kind::Bpe { pre: KNOWN[0], merges },
        tokens,
        types,
        add_bos: original.document_bos().is_some(),
        add_eos: original.eos().is_some() && ends.len() > 1 && ends.last() == original.eos().as_ref(),
        bos: generation.bos_token_id.or(original.bos()),
        eos: generation.eos_token_ids.first().copied().or(original.eos()),
        eot: generation.eos_token_ids.get(1).copied(),
        pad: generation.pad_token_id.or(original.pad()),
        unknown: original.unknown(),
        chat_template,
    };
    let mut warnings = Vec::new();
    if !hub["normalizer"].is_null() && original.spelling() == Spelling::ByteLevel {
        let kind = hub["normalizer"]["type"].as_str().unwrap_or("another").to_owned();
        warnings.push(format!(
            "the tokenizer normalises text ({kind}), llama.cpp does not: text that is not normalised gets other ids \
             there"
        ));
    }
    match original.spelling() {
        Spelling::SentencePiece => sentence_piece(&hub, &mut vocabulary).map_err(refused)?,
        Spelling::ByteLevel => choose_cutting(&hub, &original, &mut vocabulary)?,
    }
    if let Some(warning) = compare(&original, &vocabulary, &path)?.warning() {
        warnings.push(warning);
    }
    Ok(Converted { vocabulary, warnings })
}

/// Entries by id with what they are; ids without an entry are filled.
fn entries(hub: &Json, model: &Json, vocab_size: usize) -> Result<(Vec<String>, Vec<i64>), String> {
    let mut tokens: Vec<Option<String>> = vec![None; vocab_size];
    let mut types = vec![UNUSED; vocab_size];
    let beyond = |id: u64| format!("id {id} is not below vocab_size ({vocab_size})");
    let byte_fallback = model["byte_fallback"] == json!(true);
    let unknown = model["unk_token"].as_str();
    for (token, id) in model["vocab"].as_object().ok_or("it has no vocabulary")? {
        let id = id.as_u64().unwrap_or(u64::MAX);
        let slot = tokens.get_mut(id as usize).ok_or_else(|| beyond(id))?;
        if let Some(other) = slot {
            return Err(format!("entries {other:?} and {token:?} share the id {id}"));
        }
        *slot = Some(token.clone());
        if let Some(kind) = types.get_mut(id as usize) {
            *kind = match token.as_str() {
                text if Some(text) == unknown => UNKNOWN,
                text if byte_fallback && is_byte(text) => BYTE,
                _ => NORMAL,
            };
        }
    }
    for added in hub["added_tokens"].as_array().into_iter().flatten() {
        let (Some(id), Some(content)) = (added["id"].as_u64(), added["content"].as_str()) else { continue };
        let special = added["special"] == json!(true);
        let slot = tokens.get_mut(id as usize).ok_or_else(|| beyond(id))?;
        // llama.cpp looks for these in text as it is, with its spaces.
        *slot = Some(if special { content.to_owned() } else { content.replace('▁', " ") });
        if let Some(kind) = types.get_mut(id as usize).filter(|kind| **kind != UNKNOWN) {
            *kind = if special { CONTROL } else { USER_DEFINED };
        }
    }
    let name = |(id, token): (usize, Option<String>)| token.unwrap_or_else(|| format!("[PAD{id}]"));
    Ok((tokens.into_iter().enumerate().map(name).collect(), types))
}

fn is_byte(token: &str) -> bool {
    let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    hex.is_some_and(|hex| hex.len() == 2 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// Merges in order, as pairs with a space between.
fn merges(model: &Json) -> Result<Vec<String>, String> {
    let pair = |merge: &Json| match merge {
        Json::String(pair) => Some(pair.clone()),
        Json::Array(pair) => {
            let [left, right] = pair.as_slice() else { return None };
            let (left, right) = (left.as_str()?, right.as_str()?);
            // A space is what separates the two.
            (!left.contains(' ') && !right.contains(' ')).then(|| format!("{left} {right}"))
        }
        _ => None,
    };
    let list = model["merges"].as_array().ok_or("it has no merges")?;
    list.iter().map(|merge| pair(merge).ok_or_else(|| format!("merge {merge} cannot be written"))).collect()
}

/// Scores fall with the place of the first merge that makes an entry; entries that no merge makes never win.
fn sentence_piece(hub: &Json, vocabulary: &mut Vocabulary) -> Result<(), String> {
    let Kind::Bpe { merges, .. } = &vocabulary.kind else { return Ok(()) };
    let mut rank: HashMap<String, usize> = HashMap::with_capacity(merges.len());
    for (place, merge) in merges.iter().enumerate() {
        rank.entry(merge.replacen(' ', "", 1)).or_insert(place);
    }
    let score = |token: &String| match rank.get(token) {
        // Whole numbers stay exact in f32 up to 2^24.
        Some(place) => -(*place as f32),
        None => -(merges.len() as f32) - 1.0,
    };
    let scores = vocabulary.tokens.iter().zip(&vocabulary.types);
    let scores = scores.map(|(token, kind)| if *kind == NORMAL { score(token) } else { 0.0 }).collect();
    let prepends = |step: &Json| step["type"] == json!("Prepend") && step["prepend"] == json!("▁");
    let normalizer = &hub["normalizer"];
    let steps = normalizer["normalizers"].as_array();
    let metaspace = &hub["pre_tokenizer"];
    let space_prefix = prepends(normalizer)
        || steps.is_some_and(|steps| steps.iter().any(prepends))
        || (metaspace["type"] == json!("Metaspace") && metaspace["prepend_scheme"] != json!("never"));
    if merges.len() >= 1 << 24 {
        return Err("it has more merges than scores can tell apart".into());
    }
    vocabulary.kind = Kind::SentencePiece { scores, space_prefix };
    Ok(())
}

/// Takes the cutting that is the tokenizer's own, else the one under which fewest texts get other ids.
fn choose_cutting(hub: &Json, original: &Tokenizer, vocabulary: &mut Vocabulary) -> Result<(), GgufError> {
    let mut order = KNOWN.to_vec();
    order.sort_by_key(|known| !known.equals(&hub["pre_tokenizer"]));
    let mut best: Option<(Agreement, PreTokenizer)> = None;
    for candidate in order {
        if let Kind::Bpe { pre, .. } = &mut vocabulary.kind {
            *pre = candidate;
        }
        let agreement = compare(original, vocabulary, original.path())?;
        if best.as_ref().is_none_or(|(found, _)| agreement.other_ids < found.other_ids) {
            let exact = agreement.other_ids == 0;
            best = Some((agreement, candidate));
            if exact {
                break;
            }
        }
    }
    if let (Kind::Bpe { pre, .. }, Some((_, chosen))) = (&mut vocabulary.kind, best) {
        *pre = chosen;
    }
    Ok(())
}

/// How far a vocabulary encodes texts as the original does.
#[derive(Debug, Clone, Default)]
pub(super) struct Agreement {
    pub texts: usize,
    pub other_texts: usize,
    pub ids: usize,
    /// Ids of the original that are not in the same place in the order.
    pub other_ids: usize,
    pub first: Option<String>,
}

impl Agreement {
    pub fn warning(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        Some(format!(
            "llama.cpp cuts text by a name, and no name cuts as this tokenizer does: {} of {} test texts get other ids \
             ({:.1} % of the ids), the first is {first:?}; send token ids made with tokenizer.json where that matters",
            self.other_texts,
            self.texts,
            100.0 * self.other_ids as f64 / self.ids.max(1) as f64
        ))
    }
}

/// Encodes texts with both.
pub(super) fn compare(original: &Tokenizer, vocabulary: &Vocabulary, path: &Path) -> Result<Agreement, GgufError> {
    let failed = |error: data_pipeline::tokenizer::TokenizerError| GgufError::Tokenizer {
        path: path.to_owned(),
        cause: error.to_string(),
    };
    let emulated = vocabulary.open(path)?;
    let mut found = Agreement::default();
    for text in PROBE_TEXTS.into_iter().chain(SAMPLE) {
        let expected = original.encode(text, true).map_err(failed)?;
        let got = emulated.encode(text, true).map_err(failed)?;
        found.texts += 1;
        found.ids += expected.len();
        if expected != got {
            found.other_texts += 1;
            let head = expected.iter().zip(&got).take_while(|(a, b)| a == b).count();
            let tail = expected.iter().rev().zip(got.iter().rev()).take_while(|(a, b)| a == b).count();
            found.other_ids += expected.len().saturating_sub(head + tail).max(1);
            found.first.get_or_insert_with(|| text.to_owned());
        }
    }
    Ok(found)
}

impl Vocabulary {
    /// The keys of the file.
    pub fn describe(&self) -> Vec<(String, Value)> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let mut keys = Vec::new();
        match &self.kind {
            Kind::Bpe { pre, merges } => {
                keys.push((key("model"), Value::String("gpt2".into())));
                keys.push((key("pre"), Value::String(pre.name.into())));
                keys.push((key("merges"), Value::Strings(merges.clone())));
            }
            Kind::SentencePiece { scores, space_prefix } => {
                keys.push((key("model"), Value::String("llama".into())));
                keys.push((key("pre"), Value::String("default".into())));
                keys.push((key("scores"), Value::Floats(scores.clone())));
                keys.push((key("add_space_prefix"), Value::Bool(*space_prefix)));
            }
        }
        keys.push((key("tokens"), Value::Strings(self.tokens.clone())));
        keys.push((key("token_type"), Value::Integers(self.types.clone())));
        for (name, id) in [
            ("bos_token_id", self.bos),
            ("eos_token_id", self.eos),
            ("eot_token_id", self.eot),
            ("padding_token_id", self.pad),
            ("unknown_token_id", self.unknown),
        ] {
            if let Some(id) = id {
                keys.push((key(name), Value::U32(id)));
            }
        }
        keys.push((key("add_bos_token"), Value::Bool(self.add_bos)));
        keys.push((key("add_eos_token"), Value::Bool(self.add_eos)));
        if let Some(template) = &self.chat_template {
            keys.push(("tokenizer.chat_template".into(), Value::String(template.clone())));
        }
        keys
    }

    /// The vocabulary in a file.
    ///
    /// # Errors
    /// [`GgufError::Unsupported`] or [`GgufError::Damaged`] names the key.
    pub fn read(file: &GgufFile) -> Result<Self, GgufError> {
        let path = file.path();
        let damaged = |cause: String| GgufError::Damaged { path: path.to_owned(), cause };
        let unsupported = |cause: String| GgufError::Unsupported { path: path.to_owned(), cause };
        let get = |name: &str| file.get(&format!("tokenizer.ggml.{name}"));
        let missing = |name: &str| damaged(format!("tokenizer.ggml.{name} is missing or of another kind"));
        let Some(Value::Strings(tokens)) = get("tokens") else { return Err(missing("tokens")) };
        let Some(Value::Integers(types)) = get("token_type") else { return Err(missing("token_type")) };
        if types.len() != tokens.len() {
            return Err(damaged(format!("{} tokens have {} types", tokens.len(), types.len())));
        }
        let kind = match get("model").and_then(Value::as_str) {
            Some("gpt2") => {
                let Some(Value::Strings(merges)) = get("merges") else { return Err(missing("merges")) };
                let name = get("pre").and_then(Value::as_str).unwrap_or_default();
                let pre = PreTokenizer::named(name);
                let pre = pre.ok_or_else(|| unsupported(format!("tokenizer.ggml.pre {name:?} is not known here")))?;
                Kind::Bpe { pre, merges: merges.clone() }
            }
            Some("llama") => {
                let Some(Value::Floats(scores)) = get("scores") else { return Err(missing("scores")) };
                if scores.len() != tokens.len() {
                    return Err(damaged(format!("{} tokens have {} scores", tokens.len(), scores.len())));
                }
                let space_prefix = get("add_space_prefix").and_then(Value::as_bool).unwrap_or(true);
                Kind::SentencePiece { scores: scores.clone(), space_prefix }
            }
            other => return Err(unsupported(format!("tokenizer.ggml.model {other:?} is not read here"))),
        };
        let id = |name: &str| -> Result<Option<u32>, GgufError> {
            let Some(value) = get(name) else { return Ok(None) };
            let id = value.as_u64().filter(|id| (*id as usize) < tokens.len());
            let id = id.ok_or_else(|| damaged(format!("tokenizer.ggml.{name} is {value:?}, no id of the tokens")))?;
            Ok(u32::try_from(id).ok())
        };
        Ok(Self {
            kind,
            add_bos: get("add_bos_token").and_then(Value::as_bool).unwrap_or(false),
            add_eos: get("add_eos_token").and_then(Value::as_bool).unwrap_or(false),
            bos: id("bos_token_id")?,
            eos: id("eos_token_id")?,
            eot: id("eot_token_id")?,
            pad: id("padding_token_id")?,
            unknown: id("unknown_token_id")?,
            chat_template: file.get("tokenizer.chat_template").and_then(Value::as_str).map(str::to_owned),
            tokens: tokens.clone(),
            types: types.clone(),
        })
    }

    /// A tokenizer that encodes as llama.cpp does with this vocabulary.
    ///
    /// # Errors
    /// [`GgufError::Tokenizer`] when the vocabulary contradicts itself.
    pub fn open(&self, path: &Path) -> Result<Tokenizer, GgufError> {
        let config = self.roles();
        let text = self.to_hub().to_string();
        Tokenizer::from_json(text.as_bytes(), &config, path)
            .map_err(|error| GgufError::Tokenizer { path: PathBuf::from(path), cause: error.to_string() })
    }

    fn token(&self, id: Option<u32>) -> Option<&String> {
        self.tokens.get(id? as usize)
    }

    /// Roles as tokenizer_config.json names them.
    fn roles(&self) -> Map<String, Json> {
        let roles =
            [("bos_token", self.bos), ("eos_token", self.eos), ("pad_token", self.pad), ("unk_token", self.unknown)];
        roles.into_iter().filter_map(|(role, id)| Some((role.to_owned(), json!(self.token(id)?)))).collect()
    }

    /// The same as a tokenizer.json.
    fn to_hub(&self) -> Json {
        let listed = self.tokens.iter().zip(&self.types).enumerate();
        let vocabulary: Map<String, Json> = listed
            .clone()
            // Special tokens too: the library gives new ids to those that are not in the vocabulary.
            .filter(|(_, (_, kind))| **kind != UNUSED)
            .map(|(id, (token, _))| (token.clone(), json!(id)))
            .collect();
        let added: Vec<Json> = listed
            .filter(|(_, (_, kind))| matches!(**kind, CONTROL | USER_DEFINED | UNKNOWN))
            .map(|(id, (token, kind))| {
                json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": *kind != USER_DEFINED})
            })
            .collect();
        let (normalizer, pre_tokenizer, decoder, merges, ignore_merges) = match &self.kind {
            Kind::Bpe { pre, merges } => {
                let decoder =
                    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
                (Json::Null, pre.to_hub(), decoder, json!(merges), pre.ignores_merges())
            }
            Kind::SentencePiece { scores, space_prefix } => {
                let (normalizer, decoder) = space_rules(*space_prefix);
                (normalizer, Json::Null, decoder, json!(self.merges_of(scores)), false)
            }
        };
        let unknown = self.token(self.unknown).filter(|token| vocabulary.contains_key(*token)).cloned();
        let sentence_piece = matches!(self.kind, Kind::SentencePiece { .. });
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "decoder": decoder,
            "post_processor": self.frame(),
            "model": {
                "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": sentence_piece, "byte_fallback": sentence_piece,
                "ignore_merges": ignore_merges, "vocab": vocabulary, "merges": merges,
            },
        })
    }

    /// What stands around a text.
    fn frame(&self) -> Json {
        let bos = self.token(self.bos).filter(|_| self.add_bos);
        let eos = self.token(self.eos).filter(|_| self.add_eos);
        let piece = |token: &String| json!({"SpecialToken": {"id": token, "type_id": 0}});
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let single: Vec<Json> = bos.map(piece).into_iter().chain([text]).chain(eos.map(piece)).collect();
        let known: Map<String, Json> = [(bos, self.bos), (eos, self.eos)]
            .into_iter()
            .filter_map(|(token, id)| Some((token?.clone(), json!({"id": token?, "ids": [id?], "tokens": [token?]}))))
            .collect();
        if known.is_empty() {
            return Json::Null;
        }
        json!({"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": known})
    }

    /// Every way of making an entry of two others, by score: what SentencePiece does without a list.
    fn merges_of(&self, scores: &[f32]) -> Vec<[&str; 2]> {
        let places: HashMap<&str, usize> =
            self.tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
        let mut list = Vec::new();
        for (id, (token, kind)) in self.tokens.iter().zip(&self.types).enumerate() {
            if *kind != NORMAL || token.chars().nth(MAX_PIECE_CHARS).is_some() {
                continue;
            }
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                let normal = |piece: &str| places.get(piece).filter(|id| self.types.get(**id) == Some(&NORMAL));
                if let (Some(a), Some(b)) = (normal(left), normal(right)) {
                    let score = scores.get(id).copied().unwrap_or_default();
                    list.push((score, *a, *b, [left, right]));
                }
            }
        }
        list.sort_by(|x, y| y.0.total_cmp(&x.0).then((x.1, x.2).cmp(&(y.1, y.2))));
        list.into_iter().map(|(.., pair)| pair).collect()
    }
}

/// Normalizer and decoder of SentencePiece tokenizers.
fn space_rules(space_prefix: bool) -> (Json, Json) {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let back = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
    let (bytes, fuse) = (json!({"type": "ByteFallback"}), json!({"type": "Fuse"}));
    if !space_prefix {
        return (replace, json!({"type": "Sequence", "decoders": [back, bytes, fuse]}));
    }
    let prepend = json!({"type": "Prepend", "prepend": "▁"});
    let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
    (
        json!({"type": "Sequence", "normalizers": [prepend, replace]}),
        json!({"type": "Sequence", "decoders": [back, bytes, fuse, strip]}),
    )
}
