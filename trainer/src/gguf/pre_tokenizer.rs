//! Owns the names by which llama.cpp knows how a text is cut before BPE, and what each of them does; never touches
//! vocabularies.
//!
//! llama.cpp takes a name, not a pattern, so a pattern of our own needs the name that cuts most like it.

use serde_json::{Value, json};

/// One way of cutting, as `llama-vocab.cpp` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PreTokenizer {
    /// `tokenizer.ggml.pre`.
    pub name: &'static str,
    /// Applied one after the other to every piece; what no match covers is a piece as well.
    patterns: &'static [&'static str],
    /// Whether a whole piece that is a vocabulary entry is taken without merging.
    ignore_merges: bool,
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)` in front of what llama.cpp's Llama 3 and Qwen 2 have in common.
macro_rules! contractions {
    ($rest:literal) => {
        concat!("(?i:'s|'t|'re|'ve|'m|'ll|'d)|", $rest)
    };
}

const LLAMA_3: &str =
    contractions!(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+");
const QWEN_2: &str =
    contractions!(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+");
const QWEN_35: &str =
    contractions!(r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+");
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

/// The names worth trying, the most widely understood first.
pub(super) const KNOWN: [PreTokenizer; 7] = [
    PreTokenizer { name: "llama-bpe", patterns: &[LLAMA_3], ignore_merges: true },
    PreTokenizer { name: "smaug-bpe", patterns: &[LLAMA_3], ignore_merges: false },
    PreTokenizer { name: "qwen2", patterns: &[QWEN_2], ignore_merges: false },
    PreTokenizer { name: "gpt-2", patterns: &[GPT_2], ignore_merges: false },
    PreTokenizer { name: "qwen35", patterns: &[QWEN_35], ignore_merges: false },
    PreTokenizer { name: "bloom", patterns: &[BLOOM], ignore_merges: false },
    PreTokenizer { name: "viking", patterns: &[BLOOM, r"\p{N}"], ignore_merges: false },
];

/// Texts by which names are told apart: every script of the corpora, Arabizi, digits, punctuation, white space.
pub(crate) const SAMPLE: [&str; 16] = [
    "السلام عليكم، كيداير؟ لاباس عليك؟ هادي 3 سنين ما شفتكش.",
    "قَرَأْتُ كِتَابًا جَدِيدًا فِي سَنَةِ ٢٠٢٤، وَكَانَ جَمِيلًا جِدًّا.",
    "wach nta labas 3lik? 7amdollah, ana mzyan bzaf! 9ahwa w 2 atay 3afak",
    "chkoun li 3ndo 12 3am? smiti F9ih, 06-61-23-45-67",
    "ⴰⵣⵓⵍ, ⵎⴰⵏⵣⴰⴽⵉⵏ? ⵜⴰⵏⵎⵎⵉⵔⵜ ⴱⴰⵀⵔⴰ. ⴰⴷⵍⵉⵙ 1985",
    "azul, manzakin? tanmmirt bahra, ad isεudjeb akkʷ ɣef tmazirt",
    "Aujourd'hui, l'été à Fès coûte 1 250,50 DH (soit ~115 €) ; c'est cher !",
    "I'm sure they'll say it's fine: 100% of 12345678 items (see p. 42-43).",
    "fi 2024, l'prix dyal 10kg tl3 b 15%; f 1999 kan 3/4.",
    "https://example.org/a_b?c=1&d=%20#top user@example.com v2.0.1-rc3",
    "السعر: 1200 درهم – من 09:30 إلى 18:00 (الاثنين/الجمعة)...",
    "line one\nline two\n\n  indented\ttab  two spaces \r\nwindows\n",
    "{\"name\": \"Jazari\", \"year\": 1206, \"list\": [1, 2, 3]}",
    "😀👍🏽 🇲🇦 «اقتباس» “quote” ’apostrophe’ … — ؛ ٪ ٫",
    "m9wd 3lach h4 gha bqa hna 5er had l7aja zwina w mziwna bzzaf",
    "A.B.C.  ...  ---  ***  ==  <tag>text</tag>  x=y+z*2",
];

impl PreTokenizer {
    /// The one a file names; several names mean the same.
    pub(super) fn named(name: &str) -> Option<Self> {
        let name = match name {
            "llama3" | "llama-v3" => "llama-bpe",
            "dbrx" | "chatglm-bpe" => "smaug-bpe",
            "stablelm2" | "hunyuan" | "megrez" => "qwen2",
            "gpt2" | "mpt" | "olmo" | "jais" => "gpt-2",
            "gpt3-finnish" | "poro-chat" => "bloom",
            other => other,
        };
        KNOWN.into_iter().find(|known| known.name == name)
    }

    /// Whether this is exactly what the `pre_tokenizer` of a tokenizer.json does.
    pub(super) fn equals(self, hub: &Value) -> bool {
        let list = hub.get("pretokenizers").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![hub.clone()]);
        let byte_level = |step: &Value| step.get("type").and_then(Value::as_str) == Some("ByteLevel");
        let uses_regex = list.iter().any(|step| byte_level(step) && step["use_regex"] != json!(false));
        let pattern = |step: &Value| step.get("pattern")?.get("Regex")?.as_str().map(str::to_owned);
        let mut patterns: Vec<String> = list.iter().filter_map(pattern).collect();
        if uses_regex {
            patterns.push(GPT_2.into());
        }
        patterns == self.patterns
    }

    /// The same as the `pre_tokenizer` of a tokenizer.json.
    pub(super) fn to_hub(self) -> Value {
        let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let mut steps: Vec<Value> = self.patterns.iter().map(split).collect();
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        steps.push(byte_level);
        json!({"type": "Sequence", "pretokenizers": steps})
    }

    /// Whether a whole piece that is a vocabulary entry is taken without merging.
    pub(super) fn ignores_merges(self) -> bool {
        self.ignore_merges
    }
}
