//! Owns `jazari generate`; never touches sampling itself.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use data_pipeline::tokenizer::Tokenizer;
use model_zoo::generate::{GenerateOptions, Sampling};
use model_zoo::{Model, Params};

use super::adapter::Named;
use super::failure::{Exit, Failure, say};
use crate::device::{self, DeviceChoice};
use crate::hub;

#[derive(Debug, Args)]
pub(super) struct GenerateArguments {
    /// A Hugging Face directory, such as `jazari export` makes
    model: PathBuf,
    /// Adapter to put on the model, as PEFT saves it; several share one base, and each answers under its name
    #[arg(long, value_name = "[NAME=]DIR")]
    adapter: Vec<String>,
    /// Text to continue
    #[arg(long)]
    prompt: String,
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
    if !arguments.model.join("config.json").is_file() {
        return Err(Failure::usage(format!(
            "{}: there is no config.json here; name a Hugging Face directory (`jazari export RUN --out DIR` makes one)",
            arguments.model.display()
        )));
    }
    let tokenizer = Tokenizer::open(&arguments.model.join("tokenizer.json")).map_err(Failure::usage)?;
    let opened = device::open(arguments.device, None).map_err(Failure::usage)?;
    let imported = hub::import(&arguments.model, &opened.device).map_err(Failure::usage)?;
    let prompt = tokenizer.encode(&arguments.prompt, true).map_err(Failure::usage)?;
    let options = GenerateOptions {
        max_new_tokens: arguments.max_tokens,
        sampling: Sampling { temperature: arguments.temperature, top_k: arguments.top_k, top_p: arguments.top_p },
        seed: arguments.seed,
        eos: imported.generation.eos_token_ids.clone(),
    };
    let adapted = super::adapter::on_one_base(&imported, &arguments.adapter, &opened.device)?;
    let answer = |model: &Model, params: &Params| {
        let mut stream = TextStream { tokenizer: &tokenizer, ids: Vec::new(), shown: 0 };
        let _ = write!(std::io::stdout(), "{}", arguments.prompt);
        let result = model_zoo::generate::generate(model, params, &prompt, &options, &mut |id| stream.push(id));
        say("");
        result.map(|_| ()).map_err(Failure::usage)
    };
    if adapted.is_empty() {
        answer(&imported.model, &imported.params)?;
    }
    for Named { name, model, params } in &adapted {
        if adapted.len() > 1 {
            say(&format!("[{name}]"));
        }
        answer(model, params)?;
    }
    Ok(Exit::Done)
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
