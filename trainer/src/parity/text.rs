//! Owns comparing tokenization, decoded texts and rendered chats; never touches tensors.

use std::collections::BTreeSet;

use data_pipeline::chat::{ChatEncoder, Role};
use data_pipeline::tokenizer::Tokenizer;
use data_pipeline::tokenizer::chat::{ChatError, ChatTemplate, RenderOptions};
use serde::Deserialize;
use serde_json::Value;

use super::bundle::Bundle;
use super::inference::StoredText;
use super::{ParityError, Table};

#[derive(Deserialize)]
struct Cases {
    encode: Vec<EncodeCase>,
    chat: Vec<ChatCase>,
    chat_template_with_generation: Option<String>,
}

#[derive(Deserialize)]
struct EncodeCase {
    text: String,
    ids: Vec<u32>,
    ids_no_special: Vec<u32>,
    decoded: String,
    decoded_skip: String,
}

/// A chat that the template renders, or that it must refuse.
#[derive(Deserialize)]
struct ChatCase {
    messages: Vec<Value>,
    add_generation_prompt: bool,
    rendered: Option<String>,
    ids: Option<Vec<u32>>,
    assistant_mask: Option<Vec<u8>>,
    error: Option<String>,
}

/// Runs every comparison of texts.
pub fn compare(bundle: &Bundle, table: &mut Table<'_>) -> Result<(), ParityError> {
    let tokenizer = Tokenizer::open(&bundle.hub.join("tokenizer.json"))?;
    let cases: Cases = bundle.json("tokenizer_cases.json")?;
    let mut encoded = Tally::default();
    let mut decoded = Tally::default();
    for case in &cases.encode {
        encoded.see(tokenizer.encode(&case.text, true)? == case.ids, &case.text);
        encoded.see(tokenizer.encode(&case.text, false)? == case.ids_no_special, &case.text);
        decoded.see(tokenizer.decode(&case.ids_no_special, false)? == case.decoded, &case.text);
        decoded.see(tokenizer.decode(&case.ids, true)? == case.decoded_skip, &case.text);
    }
    encoded.report("token ids", table);
    decoded.report("decoded texts", table);

    let mut generated = Tally::default();
    for case in bundle.json::<Vec<StoredText>>("generation.json")? {
        generated.see(tokenizer.decode(&case.new_ids, false)? == case.text, &case.text);
    }
    generated.report("decoded continuations", table);
    chats(bundle, &tokenizer, &cases.chat, table)?;
    masks(bundle, &tokenizer, &cases, table)
}

/// Which tokens of chats are trained, by the template with `{% generation %}` marks.
fn masks(bundle: &Bundle, tokenizer: &Tokenizer, cases: &Cases, table: &mut Table<'_>) -> Result<(), ParityError> {
    let (Some(marked), Some(plain)) = (&cases.chat_template_with_generation, ChatTemplate::open(&bundle.hub)?) else {
        Tally::default().report("trained tokens of chats", table);
        return Ok(());
    };
    let template = || ChatTemplate::new(marked, plain.special_tokens().clone());
    let encoder = ChatEncoder::new(tokenizer, template()?, vec![Role::Assistant]);
    let mut trained = Tally::default();
    for case in &cases.chat {
        let Some(expected) = &case.assistant_mask else { continue };
        let options = RenderOptions { add_generation_prompt: case.add_generation_prompt, now: None };
        let answers: Vec<bool> = case.messages.iter().map(|m| m["role"] == Role::Assistant.name()).collect();
        let rendered = encoder.template().render_trained(&case.messages, &answers, options)?;
        let name = serde_json::to_string(&case.messages).unwrap_or_default();
        let found = encoder.marked_ids(&rendered, &mut BTreeSet::new());
        trained.see(found.is_ok_and(|(_, marks)| marks == *expected), &name);
    }
    trained.report("trained tokens of chats", table);
    Ok(())
}

fn chats(bundle: &Bundle, tokenizer: &Tokenizer, cases: &[ChatCase], table: &mut Table<'_>) -> Result<(), ParityError> {
    let Some(template) = ChatTemplate::open(&bundle.hub)? else {
        table.add_cases("rendered chats", cases.len(), cases.len(), None);
        table.add_cases("token ids of chats", cases.len(), cases.len(), None);
        return Ok(());
    };
    let (mut rendered, mut encoded) = (Tally::default(), Tally::default());
    for case in cases {
        let options = RenderOptions { add_generation_prompt: case.add_generation_prompt, now: None };
        let found = template.render(&case.messages, options);
        let name = serde_json::to_string(&case.messages).unwrap_or_default();
        match (&case.rendered, &found) {
            (Some(expected), Ok(text)) => {
                rendered.see(text == expected, &name);
                encoded.see(Some(tokenizer.encode(text, false)?) == case.ids, &name);
            }
            (None, Err(ChatError::Refused { .. })) => rendered.see(case.error.is_some(), &name),
            _ => rendered.see(false, &name),
        }
    }
    rendered.report("rendered chats", table);
    encoded.report("token ids of chats", table);
    Ok(())
}

/// Cases seen and those that differ.
#[derive(Default)]
struct Tally {
    total: usize,
    differing: usize,
    first: Option<String>,
}

impl Tally {
    fn see(&mut self, equal: bool, text: &str) {
        self.total += 1;
        if !equal {
            self.differing += 1;
            self.first.get_or_insert_with(|| format!("{text:?}"));
        }
    }

    fn report(self, check: &str, table: &mut Table<'_>) {
        table.add_cases(check, self.total, self.differing, self.first);
    }
}
