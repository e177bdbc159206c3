//! Owns the configurations that `jazari init` writes: from a task, languages and hardware to commented YAML; never touches
//! the disk.

use std::fmt::Write;
use std::path::PathBuf;

use crate::config::raw::SizePreset;

/// What is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// A model with fresh weights.
    Pretrain,
    /// All weights of a model, on more text.
    Continue,
    /// An adapter on a model, on text.
    Lora,
    /// A model that answers.
    Chat,
    /// A model that prefers some answers to others.
    Preferences,
}

/// What it is made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardware {
    /// No GPU.
    Cpu,
    /// One GPU with about 24 GB.
    Gpu24,
    /// One GPU with about 80 GB.
    Gpu80,
    /// Eight of these in one host.
    EightGpus,
}

/// Languages by the names people use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// In Arabic and in Latin letters.
    Darija,
    /// Standard and regional, in Tifinagh and in Latin letters.
    Tamazight,
    /// Hassaniya.
    Hassaniya,
    /// Standard Arabic.
    Arabic,
    /// French.
    French,
    /// English.
    English,
    /// Spanish.
    Spanish,
}

impl Language {
    /// Every one.
    pub const ALL: [Self; 7] =
        [Self::Darija, Self::Tamazight, Self::Hassaniya, Self::Arabic, Self::French, Self::English, Self::Spanish];

    /// Its labels in data sets.
    pub fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Darija => &["ary_Arab", "ary_Latn"],
            Self::Tamazight => &[
                "zgh_Tfng", "zgh_Latn", "tzm_Tfng", "tzm_Latn", "rif_Tfng", "rif_Latn", "shi_Tfng", "shi_Latn",
                "ber_Latn",
            ],
            Self::Hassaniya => &["mey_Arab"],
            Self::Arabic => &["arb_Arab"],
            Self::French => &["fra_Latn"],
            Self::English => &["eng_Latn"],
            Self::Spanish => &["spa_Latn"],
        }
    }
}

/// A model to start from.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    /// Its directory.
    pub path: PathBuf,
    /// Its tokenizer.json.
    pub tokenizer: PathBuf,
    /// Longest row it was made for, tokens.
    pub max_positions: usize,
    /// Whether it brings a chat template along.
    pub has_template: bool,
}

/// What somebody wants to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// Folder of the configurations; data and runs go there too.
    pub folder: PathBuf,
    /// What is to be made.
    pub task: Task,
    /// What it is made on.
    pub hardware: Hardware,
    /// Size of a model with fresh weights.
    pub size: SizePreset,
    /// Texts to learn from, or chats, or preferences: a file, a folder or a glob.
    pub texts: String,
    /// Licence of texts that name none.
    pub licence: String,
    /// Languages to keep; empty: all.
    pub languages: Vec<Language>,
    /// Where training starts, for every task but [`Task::Pretrain`].
    pub base: Option<Base>,
}

/// What follows from a size, chosen so that a run of it learns: longer rows and larger batches for larger models, lower
/// rates; the values of the recipes in `configs/`.
struct Proportions {
    sequence_len: usize,
    /// Tokens of a step, in KiTok.
    batch: usize,
    learning_rate: &'static str,
    vocab_size: usize,
}

fn proportions(size: SizePreset) -> Proportions {
    let (sequence_len, batch, learning_rate, vocab_size) = match size {
        SizePreset::M3 => (256, 8, "4.0e-3", 16_384),
        SizePreset::M10 => (512, 16, "2.0e-3", 16_384),
        SizePreset::M30 => (512, 16, "1.0e-3", 16_384),
        SizePreset::M110 => (1024, 128, "6.0e-4", 32_768),
        SizePreset::M350 => (1024, 256, "4.0e-4", 32_768),
        SizePreset::B1 => (2048, 512, "3.0e-4", 32_768),
    };
    Proportions { sequence_len, batch, learning_rate, vocab_size }
}

/// Tokens that go through a GPU at once at most.
const MICRO_TOKENS: usize = 16 << 10;

/// The name of a size, as configurations have it.
pub fn size_name(size: SizePreset) -> &'static str {
    match size {
        SizePreset::M3 => "3m",
        SizePreset::M10 => "10m",
        SizePreset::M30 => "30m",
        SizePreset::M110 => "110m",
        SizePreset::M350 => "350m",
        SizePreset::B1 => "1b",
    }
}

/// The size that hardware trains in a reasonable time.
pub fn usual_size(hardware: Hardware) -> SizePreset {
    match hardware {
        Hardware::Cpu => SizePreset::M10,
        Hardware::Gpu24 => SizePreset::M110,
        Hardware::Gpu80 => SizePreset::M350,
        Hardware::EightGpus => SizePreset::B1,
    }
}

impl Task {
    /// Whether it learns from texts that `jazari data prepare` makes ready; else from files of records.
    pub fn reads_texts(self) -> bool {
        matches!(self, Self::Pretrain | Self::Continue | Self::Lora)
    }
}

/// A path as YAML text.
fn quoted(path: &str) -> String {
    // Every JSON string is a YAML string.
    serde_json::Value::from(path).to_string()
}

impl Wish {
    fn inside(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// The command that trains, as a user types it.
    pub fn train_command(&self) -> String {
        let config = self.inside("train.yaml");
        match self.hardware {
            Hardware::EightGpus => format!("jazari launch --nproc 8 -- train {config}"),
            _ => format!("jazari train {config}"),
        }
    }

    /// `data.yaml`, for tasks that learn from texts.
    pub fn data_yaml(&self) -> Option<String> {
        if !self.task.reads_texts() {
            return None;
        }
        let mut yaml = String::new();
        // Writing to a String cannot fail.
        _ = self.write_data(&mut yaml);
        Some(yaml)
    }

    fn write_data(&self, yaml: &mut String) -> std::fmt::Result {
        let config = self.inside("data.yaml");
        writeln!(
            yaml,
            "# The texts to learn from. docs/guide/data.md explains every key.\n#\n#   jazari data prepare {config}\n"
        )?;
        writeln!(yaml, "output_dir: {}\n", quoted(&self.inside("data")))?;
        writeln!(yaml, "sources:")?;
        writeln!(
            yaml,
            "  - path: {}   # JSONL, Parquet, CSV, text or WARC; a file, a folder or a glob",
            quoted(&self.texts)
        )?;
        writeln!(yaml, "    licence: {:<20}# of rows that name none in a field `licence`\n", self.licence)?;
        writeln!(yaml, "allow_licences:                  # texts under any other licence are dropped and counted")?;
        let open = ["Apache-2.0", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "MIT"];
        let own = Some(self.licence.as_str()).filter(|own| !open.contains(own));
        open.into_iter().chain(own).try_for_each(|licence| writeln!(yaml, "  - {licence}"))?;
        writeln!(yaml)?;
        writeln!(
            yaml,
            "normalize: moroccan-v1           # one code point for each letter, no tatweel, no marks that nobody sees"
        )?;
        writeln!(
            yaml,
            "repair: {{}}                       # wrong encodings, text turned round by PDF; garbage is dropped"
        )?;
        writeln!(yaml, "identify:                        # the language of each text")?;
        writeln!(yaml, "  on_conflict: keep              # `relabel` or `drop` where a row says otherwise")?;
        self.write_kept(yaml)?;
        writeln!(
            yaml,
            "pii: {{}}                          # telephone numbers, cards, accounts, addresses are replaced"
        )?;
        writeln!(yaml, "dedup: exact                     # equal texts are kept once")?;
        writeln!(
            yaml,
            "near: {{}}                         # of texts that differ in a few words, the first is kept\n"
        )?;
        writeln!(yaml, "validation:")?;
        writeln!(yaml, "  fraction: 0.02                 # held out to measure every language")?;
        writeln!(yaml, "  min_documents: 16\n")?;
        writeln!(yaml, "tokenizer:")?;
        match &self.base {
            Some(base) => {
                writeln!(yaml, "  path: {}   # that of the base model", quoted(&base.tokenizer.display().to_string()))
            }
            None => {
                writeln!(yaml, "  train:")?;
                let size = proportions(self.size).vocab_size;
                writeln!(
                    yaml,
                    "    vocab_size: {size}            # shared by all scripts; fewer for less than some 20 MB of text"
                )
            }
        }
    }

    fn write_kept(&self, yaml: &mut String) -> std::fmt::Result {
        writeln!(yaml, "  drop: [und, zxx]               # what is surely in another language, or in none")?;
        if self.languages.is_empty() {
            return Ok(());
        }
        writeln!(yaml, "  keep:                          # all others go")?;
        let mut kept = self.languages.iter().flat_map(|language| language.labels());
        kept.try_for_each(|label| writeln!(yaml, "    - {label}"))
    }

    /// `train.yaml`.
    pub fn train_yaml(&self) -> String {
        let mut yaml = String::new();
        // Writing to a String cannot fail.
        _ = self.write_train(&mut yaml);
        yaml
    }

    fn write_train(&self, yaml: &mut String) -> std::fmt::Result {
        let (config, what) = (self.inside("train.yaml"), self.title());
        writeln!(yaml, "# {what}. docs/guide/config.md explains every key.\n#\n#   jazari plan {config}")?;
        writeln!(yaml, "#   {}\n\nconfig_version: 1", self.train_command())?;
        writeln!(yaml, "output_dir: {}", quoted(&self.inside("run")))?;
        writeln!(yaml, "seed: 1\n")?;
        self.write_model(yaml)?;
        self.write_datasets(yaml)?;
        self.write_lengths(yaml)?;
        self.write_optimizer(yaml)?;
        self.write_hardware(yaml)?;
        writeln!(
            yaml,
            "\nsave_total_limit: 3              # checkpoints; an interrupted run continues from the newest one"
        )?;
        writeln!(yaml, "logging_steps: 10")
    }

    fn title(&self) -> String {
        match self.task {
            Task::Pretrain => format!("A model of the size {} with fresh weights", size_name(self.size)),
            Task::Continue => "More text for a trained model, all of its weights".into(),
            Task::Lora => "More text for a trained model, as an adapter".into(),
            Task::Chat => "A trained model learns to answer, from chats".into(),
            Task::Preferences => "A model that answers learns which answers are better (DPO)".into(),
        }
    }

    /// Whether an adapter is trained instead of all weights.
    fn has_adapter(&self) -> bool {
        let is_small = matches!(self.hardware, Hardware::Cpu | Hardware::Gpu24);
        self.task == Task::Lora || (is_small && matches!(self.task, Task::Chat | Task::Preferences))
    }

    fn write_model(&self, yaml: &mut String) -> std::fmt::Result {
        let Some(base) = &self.base else {
            let at = self.size.dimensions();
            writeln!(yaml, "model:")?;
            return writeln!(
                yaml,
                "  size: {:<27}# {} layers of width {}, {} query and {} key-value heads\n",
                size_name(self.size),
                at.num_hidden_layers,
                at.hidden_size,
                at.num_attention_heads,
                at.num_key_value_heads
            );
        };
        writeln!(yaml, "base_model: {}", quoted(&base.path.display().to_string()))?;
        if self.has_adapter() {
            let kind = if self.hardware == Hardware::Gpu24 { "qlora" } else { "lora" };
            let note = if kind == "qlora" { "the base in 4 bits" } else { "`qlora` holds the base in 4 bits" };
            writeln!(yaml, "adapter: {kind:<24}# {note}")?;
            writeln!(
                yaml,
                "lora_r: 16\nlora_alpha: 32                   # corrections are scaled by lora_alpha / lora_r"
            )?;
            writeln!(yaml, "lora_target_modules: all-linear")?;
        }
        writeln!(yaml)
    }

    fn write_datasets(&self, yaml: &mut String) -> std::fmt::Result {
        writeln!(yaml, "datasets:")?;
        if self.task.reads_texts() {
            writeln!(yaml, "  - path: {}\n", quoted(&self.inside("data")))?;
            writeln!(yaml, "mixture:")?;
            writeln!(yaml, "  temperature: 0.5               # below 1: lifts languages with little text")?;
            return writeln!(yaml, "  max_epochs: 8                  # no text is repeated more often\n");
        }
        let (kind, fields) = match self.task {
            Task::Preferences => ("preference", "prompt, chosen, rejected"),
            _ => ("chat", "messages of role and content, ShareGPT or Alpaca"),
        };
        writeln!(yaml, "  - path: {}", quoted(&self.texts))?;
        writeln!(yaml, "    type: {kind:<22} # {fields}\n")?;
        writeln!(yaml, "chat:")?;
        if self.base.as_ref().is_some_and(|base| !base.has_template) {
            writeln!(yaml, "  chat_template: chatml          # the base has none of its own")?;
        }
        writeln!(yaml, "  excess_length_strategy: drop   # samples longer than a row; they are counted\n")?;
        if self.task == Task::Preferences {
            writeln!(
                yaml,
                "objective:\n  type: dpo                      # or orpo, simpo: without a reference\n  beta: 0.1\n"
            )?;
        }
        Ok(())
    }

    fn write_lengths(&self, yaml: &mut String) -> std::fmt::Result {
        let mut rows = 16;
        let (sequence_len, batch) = match &self.base {
            None => {
                let Proportions { sequence_len, batch, .. } = proportions(self.size);
                rows = batch * 1024 / sequence_len;
                (sequence_len, format!("{batch} KiTok"))
            }
            Some(base) => {
                let wanted = if self.hardware == Hardware::Cpu { 512 } else { 2048 };
                (wanted.min(base.max_positions), format!("{rows} seq"))
            }
        };
        let epochs = match self.task {
            Task::Pretrain => 4,
            Task::Continue | Task::Lora => 2,
            Task::Chat => 3,
            Task::Preferences => 1,
        };
        writeln!(yaml, "sequence_len: {sequence_len:<19}# tokens in a row")?;
        writeln!(yaml, "global_batch_size: {batch:<14}# what one step learns from, over all processes")?;
        if self.hardware == Hardware::EightGpus {
            // Every process has its part of a step; what fits into memory has at most some ten thousand tokens.
            let micro = (rows / 8).min(MICRO_TOKENS / sequence_len).max(1);
            writeln!(yaml, "micro_batch_size: {micro:<15}# sequences that go through a GPU at once")?;
        }
        writeln!(yaml, "num_epochs: {epochs:<21}# times through the data; or max_steps, max_tokens\n")
    }

    fn write_optimizer(&self, yaml: &mut String) -> std::fmt::Result {
        let (rate, decay) = match (self.task, self.has_adapter()) {
            (Task::Pretrain, _) => (proportions(self.size).learning_rate, "0.1"),
            (Task::Continue, _) => ("2.0e-4", "0.1"),
            (Task::Lora, _) => ("3.0e-4", "0.0"),
            (Task::Chat, true) => ("2.0e-4", "0.0"),
            (Task::Chat, false) => ("2.0e-5", "0.0"),
            (Task::Preferences, true) => ("2.0e-5", "0.0"),
            (Task::Preferences, false) => ("1.0e-6", "0.0"),
        };
        writeln!(yaml, "learning_rate: {rate:<18}# the value to try others of first")?;
        writeln!(
            yaml,
            "betas: [0.9, 0.95]\nweight_decay: {decay}\nmax_grad_norm: 1.0\nlr_scheduler: cosine\nwarmup_ratio: 0.03\n"
        )
    }

    fn write_hardware(&self, yaml: &mut String) -> std::fmt::Result {
        if self.hardware == Hardware::Cpu {
            return writeln!(yaml, "precision: fp32\ndevice: cpu");
        }
        writeln!(yaml, "precision: bf16-mixed            # compute in bf16; weights and optimizer in fp32")?;
        writeln!(yaml, "device: cuda:0                   # with several processes, each takes the next one")?;
        let is_large = matches!(self.size, SizePreset::M350 | SizePreset::B1) || self.task != Task::Pretrain;
        if is_large && self.hardware == Hardware::Gpu24 || self.size == SizePreset::B1 {
            writeln!(yaml, "gradient_checkpointing: block    # a third more time for much less memory")?;
        }
        if self.hardware == Hardware::EightGpus && !self.has_adapter() {
            writeln!(
                yaml,
                "cluster:\n  zero: 1                        # each process keeps its part of the optimizer's state"
            )?;
        }
        Ok(())
    }
}
