//! Owns the names that other training tools use for our keys; never decides what a value means to a run.
//!
//! Renames happen on the tree before it is read, each with a note, so a recipe from another tool works and says what it
//! was understood as. A name whose meaning needs other keys (`min_lr`, `gradient_accumulation_steps`) is a real key.

use super::error::{Note, Place, shown};
use super::tree::{Entry, Node, Value};

/// A key of another tool that stands for one of ours.
#[derive(Clone, Copy, Debug)]
pub struct Alias {
    /// Name in the other tool.
    pub theirs: &'static str,
    /// Our name.
    pub ours: &'static str,
    /// How the value is carried over.
    pub value: Carry,
}

/// How an alias's value becomes ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carry {
    /// As it is.
    Same,
    /// A bare number of sequences gets its unit.
    Sequences,
    /// `bf16: true` and `bf16: false`.
    Bf16Switch,
    /// `true` is `block`, `false` is `none`.
    RecomputeSwitch,
    /// A list is the list under `stages`.
    Stages,
}

const fn same(theirs: &'static str, ours: &'static str) -> Alias {
    Alias { theirs, ours, value: Carry::Same }
}

/// The aliases of the training configuration. Sources: the key names of axolotl, LLaMA-Factory, Hugging Face
/// TrainingArguments, litgpt, levanter, OLMo-core, nanotron, Megatron and torchtitan.
pub(crate) const TRAINING: &[Alias] = &[
    same("model_name_or_path", "base_model"),
    same("checkpoint_dir", "base_model"),
    same("initialize_from", "base_model"),
    same("out_dir", "output_dir"),
    same("save_folder", "output_dir"),
    same("cutoff_len", "sequence_len"),
    same("max_seq_length", "sequence_len"),
    same("max_seq_len", "sequence_len"),
    same("sequence_length", "sequence_len"),
    same("seq_length", "sequence_len"),
    same("seq_len", "sequence_len"),
    same("packing", "sample_packing"),
    same("neat_packing", "sample_packing"),
    same("per_device_train_batch_size", "micro_batch_size"),
    Alias { theirs: "train_batch_size", ours: "global_batch_size", value: Carry::Sequences },
    same("train_steps", "max_steps"),
    same("num_train_epochs", "num_epochs"),
    same("epochs", "num_epochs"),
    same("optim", "optimizer"),
    same("lr", "learning_rate"),
    same("clip_grad", "max_grad_norm"),
    same("max_norm", "max_grad_norm"),
    same("lr_scheduler_type", "lr_scheduler"),
    same("lr_decay_style", "lr_scheduler"),
    same("lr_warmup_steps", "warmup_steps"),
    Alias { theirs: "bf16", ours: "precision", value: Carry::Bf16Switch },
    Alias { theirs: "activation_checkpointing", ours: "gradient_checkpointing", value: Carry::RecomputeSwitch },
    Alias { theirs: "recompute_layer", ours: "gradient_checkpointing", value: Carry::RecomputeSwitch },
    Alias { theirs: "gradient_checkpointing", ours: "gradient_checkpointing", value: Carry::RecomputeSwitch },
    Alias { theirs: "mixture", ours: "mixture", value: Carry::Stages },
    same("finetuning_type", "adapter"),
    same("lora_rank", "lora_r"),
    same("r", "lora_r"),
    same("lora_target", "lora_target_modules"),
    same("target_modules", "lora_target_modules"),
    same("additional_target", "lora_modules_to_save"),
    same("modules_to_save", "lora_modules_to_save"),
    same("layers_to_transform", "lora_layers_to_transform"),
    same("peft_layers_to_transform", "lora_layers_to_transform"),
    same("rank_pattern", "lora_rank_pattern"),
    same("alpha_pattern", "lora_alpha_pattern"),
    same("peft_use_rslora", "use_rslora"),
    same("peft_use_dora", "use_dora"),
    same("adapter_name_or_path", "lora_model_dir"),
    same("checkpoint_interval", "save_steps"),
    same("save_interval", "save_steps"),
    same("eval_interval", "eval_steps"),
    same("steps_per_eval", "eval_steps"),
    same("log_interval", "logging_steps"),
    same("use_tensorboard", "tensorboard"),
    same("enable_tensorboard", "tensorboard"),
];

/// Keys of other tools that have no counterpart in a training configuration, with what to do instead.
pub(crate) const ELSEWHERE: &[(&str, &str)] = &[
    ("resume", "resuming is asked for on the command line: `jazari train CONFIG --resume auto`"),
    ("resume_from_checkpoint", "resuming is asked for on the command line: `jazari train CONFIG --resume PATH`"),
    ("auto_resume_from_checkpoints", "resuming is asked for on the command line: `jazari train CONFIG --resume auto`"),
    ("val_set_size", "the held-out documents are chosen when the data is prepared: see `jazari data prepare`"),
    ("val_size", "the held-out documents are chosen when the data is prepared: see `jazari data prepare`"),
    ("train_weights", "write the weights by language or source: `mixture: {weights: {ary_Arab: 2.0}}`"),
    ("data_stages", "list the prepared data set under `datasets:`, and the weights under `mixture:`"),
    ("fp16", "fp16 is not offered: write `precision: bf16-mixed`, or `precision: fp32`"),
    ("mp", "write `precision: bf16-mixed`, or `precision: fp32`"),
    ("sources", "this is a key of a data configuration: did you mean `jazari data prepare`?"),
    ("allow_licences", "this is a key of a data configuration: did you mean `jazari data prepare`?"),
    ("tokenizer", "the tokenizer is that of the prepared data set: see `jazari data prepare`"),
    ("load_in_4bit", "write `adapter: qlora`, which holds the base in 4 bits"),
    ("load_in_8bit", "8-bit bases are not offered: write `adapter: qlora` (4 bits), or `base_dtype: bf16`"),
    ("bnb_4bit_quant_type", "write `adapter: qlora`: its format is always nf4 with double quantisation"),
    ("bnb_4bit_use_double_quant", "write `adapter: qlora`: its format is always nf4 with double quantisation"),
    (
        "report_to",
        "metrics are written to `metrics.jsonl` in `output_dir`, and for TensorBoard with `tensorboard: true`; nothing is sent anywhere",
    ),
    (
        "logger_name",
        "metrics are written to `metrics.jsonl` in `output_dir`, and for TensorBoard with `tensorboard: true`; nothing is sent anywhere",
    ),
];

/// Renames the keys of the top block in place.
///
/// # Errors
/// A key and one of its aliases are both written with different values, or a value cannot be carried over:
/// the place, the message and the hint.
pub(crate) fn rename(root: &mut Node, aliases: &[Alias]) -> Result<Vec<Note>, (Place, String, String)> {
    let Value::Map(entries) = &mut root.value else { return Ok(Vec::new()) };
    let mut notes = Vec::new();
    let mut kept: Vec<(Entry, Option<&'static str>)> = Vec::with_capacity(entries.len());
    for mut entry in std::mem::take(entries) {
        let mut theirs = None;
        if let Some(alias) = aliases.iter().find(|alias| alias.theirs == entry.key) {
            let before = spelled(&entry.node);
            carry(alias, &mut entry)?;
            let after = spelled(&entry.node);
            if alias.theirs != alias.ours || before != after {
                let text = match before == after {
                    true => format!("`{}` read as `{}`", alias.theirs, alias.ours),
                    false => format!("`{}: {before}` read as `{}: {after}`", alias.theirs, alias.ours),
                };
                notes.push(Note { file: None, place: entry.key_place.clone(), text });
            }
            entry.key = alias.ours.to_string();
            theirs = Some(alias.theirs);
        }
        match kept.iter().find(|(other, _)| other.key == entry.key) {
            None => kept.push((entry, theirs)),
            Some((other, _)) if spelled(&other.node) == spelled(&entry.node) => {}
            Some((other, other_theirs)) => return Err(contradiction(other, *other_theirs, &entry, theirs)),
        }
    }
    *entries = kept.into_iter().map(|(entry, _)| entry).collect();
    Ok(notes)
}

fn contradiction(
    first: &Entry,
    first_alias: Option<&'static str>,
    second: &Entry,
    second_alias: Option<&'static str>,
) -> (Place, String, String) {
    let ours = first.key.as_str();
    let first_name = first_alias.unwrap_or(ours);
    let second_name = second_alias.unwrap_or(ours);
    let line = match &first.key_place {
        Place::Line { line, .. } => format!(" on line {line}"),
        Place::Set(_) | Place::File => String::new(),
    };
    let message = format!(
        "`{second_name}: {}` contradicts `{first_name}: {}`{line}: both mean `{ours}`",
        spelled(&second.node),
        spelled(&first.node),
    );
    (second.key_place.clone(), message, format!("keep one of them, written as `{ours}`"))
}

fn carry(alias: &Alias, entry: &mut Entry) -> Result<(), (Place, String, String)> {
    let theirs = alias.theirs;
    match (alias.value, &entry.node.value) {
        (Carry::Sequences, Value::Int(count)) => entry.node.value = Value::Text(format!("{count} seq")),
        (Carry::Bf16Switch, Value::Bool(on)) => {
            entry.node.value = Value::Text(if *on { "bf16-mixed" } else { "fp32" }.into());
        }
        (Carry::Bf16Switch, _) => {
            let message = format!("`{theirs}` takes `true` or `false`, found {}", entry.node.found());
            return Err((entry.node.place.clone(), message, "write `precision: bf16-mixed`".into()));
        }
        (Carry::Stages, Value::List(_)) => {
            let place = entry.node.place.clone();
            let list = std::mem::replace(&mut entry.node, Node { value: Value::Null, place: place.clone() });
            let stages = Entry { key: "stages".into(), key_place: place, node: list };
            entry.node.value = Value::Map(vec![stages]);
        }
        (Carry::RecomputeSwitch, Value::Bool(false)) => entry.node.value = Value::Text("none".into()),
        (Carry::RecomputeSwitch, Value::Bool(true)) => entry.node.value = Value::Text("block".into()),
        _ => {}
    }
    Ok(())
}

/// A value in one line, for comparison and for notes.
fn spelled(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(text) => shown(text),
        Value::List(items) => format!("[{}]", items.iter().map(spelled).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let inner: Vec<String> =
                entries.iter().map(|entry| format!("{}: {}", shown(&entry.key), spelled(&entry.node))).collect();
            format!("{{{}}}", inner.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::super::tree::parse;
    use super::*;

    fn renamed(text: &str) -> Result<(Node, Vec<String>), String> {
        let mut tree = parse(text).unwrap();
        match rename(&mut tree, TRAINING) {
            Ok(notes) => Ok((tree, notes.into_iter().map(|note| note.text).collect())),
            Err((place, message, hint)) => Err(format!("{place:?} {message} {hint}")),
        }
    }

    #[test]
    fn each_alias_is_renamed_with_a_note() {
        for alias in TRAINING.iter().filter(|alias| alias.theirs != alias.ours) {
            let value = if alias.value == Carry::Same { "8" } else { "false" };
            let (tree, notes) = renamed(&format!("{}: {value}\n", alias.theirs)).unwrap();
            assert!(tree.entry(alias.ours).is_some(), "{}", alias.theirs);
            assert_eq!(notes.len(), 1, "{}", alias.theirs);
        }
        let (tree, notes) = renamed("train_batch_size: 16\nbf16: true\n").unwrap();
        assert_eq!(tree.entry("global_batch_size").unwrap().node.found(), "the text `16 seq`");
        assert_eq!(tree.entry("precision").unwrap().node.found(), "the text `bf16-mixed`");
        assert_eq!(notes[0], "`train_batch_size: 16` read as `global_batch_size: 16 seq`");
    }

    #[test]
    fn contradictions_are_errors_and_repetitions_are_not() {
        assert!(renamed("lr: 1e-3\nlearning_rate: 1e-3\n").is_ok());
        let error = renamed("seq_len: 64\nsequence_len: 128\n").unwrap_err();
        assert!(error.contains("contradicts `seq_len: 64` on line 1"), "{error}");
        let (tree, _) = renamed("activation_checkpointing: true\n").unwrap();
        assert_eq!(tree.entry("gradient_checkpointing").unwrap().node.found(), "the text `block`");
        assert!(renamed("gradient_checkpointing: none\n").unwrap().1.is_empty());
    }

    #[test]
    fn no_alias_hides_another_and_none_is_a_key_of_ours() {
        for (index, alias) in TRAINING.iter().enumerate() {
            assert!(TRAINING.iter().skip(index + 1).all(|other| other.theirs != alias.theirs), "{}", alias.theirs);
            assert!(ELSEWHERE.iter().all(|(name, _)| *name != alias.theirs), "{}", alias.theirs);
        }
    }
}
