//! Owns `jazari generate`; never touches sampling itself.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use data_pipeline::tokenizer::Tokenizer;
use data_pipeline::tokenizer::chat::RenderOptions;
use model_zoo::generate::{GenerateOptions, Sampling};
use model_zoo::{Model, Params};
use serde_json::{Value, json};

use super::adapter::Named;
use super::failure::{Exit, Failure, say};
use crate::device::{self, DeviceChoice};
use crate::durable;
use crate::eval::subject::Subject;

/// Largest file of messages that is read, bytes.
const MESSAGES_LIMIT_BYTES: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(super) struct GenerateArguments {
    /// A run (its newest valid checkpoint), a checkpoint, or a model in the layout of Hugging Face or Mistral
    model: PathBuf,
    /// The tokenizer's folder, where the model has none beside it
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Adapter to put on the model, as PEFT saves it; several share one base, and each answers under its name
    #[arg(long, value_name = "[NAME=]DIR")]
    adapter: Vec<String>,
    /// Text to continue
    #[arg(long, required_unless_present_any = ["chat", "messages"])]
    prompt: Option<String>,
    /// A question, answered through the model's chat template; the answer alone is printed
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["prompt", "messages"])]
    chat: Option<String>,
    /// A JSON file with a list of messages (role, content) to answer
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "chat"])]
    messages: Option<PathBuf>,
    /// A system message before --chat
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Most tokens to add
    #[arg(long, default_value_t = 64, value_name = "N")]
    max_tokens: usize,
    /// 0 always takes the likeliest token
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Choose among this many likeliest tokens; 0 = all
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: usize,
    /// Choose among the likeliest tokens that hold this much probability
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    top_p: f64,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to compute: auto, cpu, cuda:N, wgpu:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

/// Continues a text.
pub(super) fn generate(arguments: &GenerateArguments) -> Result<Exit, Failure> {
    let opened = device::open(arguments.device, None).map_err(Failure::usage)?;
    let subject = Subject::open(&arguments.model, arguments.tokenizer.as_deref(), &opened.device)?;
    let tokenizer = &subject.tokenizer;
    let (text, prompt) = prompt(arguments, &subject)?;
    let options = GenerateOptions {
        max_new_tokens: arguments.max_tokens,
        sampling: Sampling { temperature: arguments.temperature, top_k: arguments.top_k, top_p: arguments.top_p },
        seed: arguments.seed,
        eos: subject.eos.clone(),
    };
    let adapted = super::adapter::on_one_base(&subject, &arguments.adapter)?;
    let answer = |model: &Model, params: &Params| {
        let mut stream = TextStream { tokenizer, ids: Vec::new(), shown: 0 };
        let _ = write!(std::io::stdout(), "{text}");
        let result = model_zoo::generate::generate(model, params, &prompt, &options, &mut |id| stream.push(id));
        say("");
        result.map(|_| ()).map_err(Failure::usage)
    };
    if adapted.is_empty() {
        answer(&subject.model, &subject.params)?;
    }
    for Named { name, model, params } in &adapted {
        if adapted.len() > 1 {
            say(&format!("[{name}]"));
        }
        answer(model, params)?;
    }
    Ok(Exit::Done)
}

/// What is shown before the answer, and the ids that the model continues.
fn prompt(arguments: &GenerateArguments, subject: &Subject) -> Result<(String, Vec<u32>), Failure> {
    let tokenizer = &subject.tokenizer;
    if let Some(prompt) = &arguments.prompt {
        return Ok((prompt.clone(), tokenizer.encode(prompt, true).map_err(Failure::usage)?));
    }
    let messages = match (&arguments.chat, &arguments.messages) {
        (Some(question), _) => {
            let system = arguments.system.iter().map(|text| json!({ "role": "system", "content": text }));
            system.chain([json!({ "role": "user", "content": question })]).collect()
        }
        (None, Some(path)) => {
            let text = durable::read_text(path, MESSAGES_LIMIT_BYTES).map_err(Failure::usage)?;
            serde_json::from_str::<Vec<Value>>(&text).map_err(|error| {
                Failure::usage(format!(
                    "{}: {error}; write a JSON list of messages with role and content",
                    path.display()
                ))
            })?
        }
        (None, None) => Vec::new(),
    };
    let template = subject.chat_template.as_ref().ok_or_else(|| {
        Failure::usage(format!(
            "{}: the model has no chat template; use --prompt, or fine-tune it on chats (docs/guide/sft.md)",
            arguments.model.display()
        ))
    })?;
    let options = RenderOptions { add_generation_prompt: true, now: None };
    let rendered = template.render(&messages, options).map_err(Failure::usage)?;
    // The template writes whatever begins a chat.
    Ok((String::new(), tokenizer.encode(&rendered, false).map_err(Failure::usage)?))
}

/// Prints text as its tokens come. A character may span several tokens, so only the settled part is shown.
struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    shown: usize,
}

impl TextStream<'_> {
    fn push(&mut self, id: u32) -> ControlFlow<()> {
        self.ids.push(id);
        let Ok(text) = self.tokenizer.decode(&self.ids, true) else { return ControlFlow::Continue(()) };
        let settled = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        if let Some(new) = settled.get(self.shown..) {
            let mut out = std::io::stdout();
            if write!(out, "{new}").and_then(|()| out.flush()).is_err() {
                // Nobody reads any more.
                return ControlFlow::Break(());
            }
            self.shown = settled.len();
        }
        ControlFlow::Continue(())
    }
}
