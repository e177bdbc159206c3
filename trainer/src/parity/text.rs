//! Owns comparing tokenization, decoded texts and rendered chats; never touches tensors.

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
    chats(bundle, &tokenizer, &cases.chat, table)
}

fn chats(bundle: &Bundle, tokenizer: &Tokenizer, cases: &[ChatCase], table: &mut Table<'_>) -> Result<(), ParityError> {
    let Some(template) = ChatTemplate::open(&bundle.hub)? else {
        table.add_cases("rendered chats", cases.len(), cases.len(), None);
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
