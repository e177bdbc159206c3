//! Owns the way from a sample to token ids with a mark a token; never touches files.
//!
//! The ids are those of the rendered text with nothing added, as servers make them of the same messages. A token is
//! trained when it holds a part of a trained message, or stands between one and the special token that ends its turn,
//! that one included.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::config::ChatConfig;
use super::{Message, REJECTED, Role, Sample, TRAINED};
use crate::tokenizer::chat::{ChatError, ChatTemplate, RenderOptions, TrainedText};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// A sample that cannot be learned from.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// The template refuses it or does not show what is learned.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The tokenizer fails.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The text of the document is no sample.
    #[error("it cannot be read back ({0}); prepare the data again")]
    Damaged(#[from] serde_json::Error),
    /// No special token after a trained message.
    #[error(
        "the chat template writes no special token after a trained message (`{after}` follows), so the model would never \
         learn to stop; use a template that ends turns with a special token of this tokenizer, such as `eos_token`"
    )]
    NoEndOfTurn {
        /// What follows instead.
        after: String,
    },
    /// Nothing to learn.
    #[error(
        "no token of it is trained; check that the template writes the messages of `roles_to_train`, and put \
         `{{% generation %}}` around what the assistant writes if it has none"
    )]
    FullyMasked,
    /// Two tokens that begin a text.
    #[error("it begins with `{bos}` twice; remove it from the chat template or from the first message")]
    TwoBos {
        /// The token.
        bos: String,
    },
}

/// A sample in tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodedSample {
    /// Ids; of a preference those of the chosen answer with its prompt, then those of the rejected one with its prompt.
    pub ids: Vec<u32>,
    /// [`TRAINED`] and [`REJECTED`] bits of each id.
    pub marks: Vec<u8>,
}

/// Renders and encodes samples.
pub struct ChatEncoder<'a> {
    tokenizer: &'a Tokenizer,
    template: ChatTemplate,
    roles: Vec<Role>,
    special: BTreeSet<u32>,
}

impl<'a> ChatEncoder<'a> {
    /// An encoder with the template that `config` asks for; `None` when the tokenizer has none and none is named.
    ///
    /// # Errors
    /// A template that cannot be read or compiled.
    pub fn open(config: &ChatConfig, tokenizer: &'a Tokenizer) -> Result<Option<Self>, ChatError> {
        let folder = tokenizer.path().parent().unwrap_or(Path::new("."));
        let template = ChatTemplate::choose(config.chat_template.as_deref(), folder)?;
        Ok(template.map(|template| Self::new(tokenizer, template, config.roles())))
    }

    /// An encoder that trains on `roles`.
    pub fn new(tokenizer: &'a Tokenizer, template: ChatTemplate, roles: Vec<Role>) -> Self {
        Self { special: tokenizer.special_ids(), tokenizer, template, roles }
    }

    /// The template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// Whose words are learned.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// Encodes a sample; the ids that end its trained turns are added to `ends`.
    ///
    /// # Errors
    /// See [`SampleError`].
    pub fn encode(&self, sample: &Sample, ends: &mut BTreeSet<u32>) -> Result<EncodedSample, SampleError> {
        if sample.chosen.is_empty() {
            let trained = |message: &Message| self.roles.contains(&message.role);
            let trained: Vec<bool> = sample.messages.iter().map(trained).collect();
            return self.conversation(&sample.messages, &trained, ends);
        }
        let mut whole = EncodedSample::default();
        for (answer, bit) in [(&sample.chosen, 0), (&sample.rejected, REJECTED)] {
            let messages = [sample.messages.as_slice(), answer].concat();
            let prompt = sample.messages.iter().map(|_| false);
            let trained = answer.iter().map(|message| self.roles.contains(&message.role));
            let one = self.conversation(&messages, &prompt.chain(trained).collect::<Vec<_>>(), ends)?;
            whole.ids.extend(one.ids);
            whole.marks.extend(one.marks.into_iter().map(|mark| mark | bit));
        }
        Ok(whole)
    }

    fn conversation(
        &self,
        messages: &[Message],
        trained: &[bool],
        ends: &mut BTreeSet<u32>,
    ) -> Result<EncodedSample, SampleError> {
        let messages: Vec<Json> =
            messages.iter().map(|m| json!({ "role": m.role.name(), "content": m.content })).collect();
        let rendered = self.template.render_trained(&messages, trained, RenderOptions::default())?;
        let (ids, marks) = self.marked_ids(&rendered, ends)?;
        if let (Some(bos), [first, second, ..]) = (self.tokenizer.bos(), ids.as_slice())
            && *first == bos
            && *second == bos
        {
            return Err(SampleError::TwoBos { bos: self.tokenizer.piece(bos).unwrap_or_default() });
        }
        // The first token is nobody's target.
        if !marks.iter().skip(1).any(|mark| mark & TRAINED != 0) {
            return Err(SampleError::FullyMasked);
        }
        Ok(EncodedSample { ids, marks })
    }

    /// Ids of a rendered chat, and which of them are trained; the ids that end trained turns are added to `ends`.
    ///
    /// # Errors
    /// When the tokenizer fails, or nothing ends a turn.
    pub fn marked_ids(
        &self,
        rendered: &TrainedText,
        ends: &mut BTreeSet<u32>,
    ) -> Result<(Vec<u32>, Vec<u8>), SampleError> {
        let (ids, ranges) = self.tokenizer.encode_with_offsets(&rendered.text)?;
        let mut marks = vec![0; ids.len()];
        let mut from = 0;
        for span in &rendered.spans {
            let overlaps = |range: &Range<usize>| range.start < span.end && range.end > span.start;
            let Some(first) = ranges.iter().skip(from).position(overlaps).map(|at| at + from) else { continue };
            let inside = ranges.iter().skip(first).take_while(|range| range.start < span.end).count();
            let mut end = first + inside;
            if !rendered.marked {
                end = self.end_of_turn(&rendered.text, &ids, &ranges, end)?;
            }
            marks.get_mut(first..end).unwrap_or_default().fill(TRAINED);
            ends.extend(self.closing(&rendered.text, &ids, &ranges, first..end));
            from = end;
        }
        Ok((ids, marks))
    }

    fn is_blank(text: &str, ranges: &[Range<usize>], at: usize) -> bool {
        let piece = ranges.get(at).and_then(|range| text.get(range.clone()));
        piece.is_some_and(|piece| piece.chars().all(char::is_whitespace))
    }

    fn is_special(&self, ids: &[u32], at: usize) -> bool {
        ids.get(at).is_some_and(|id| self.special.contains(id))
    }

    /// One past the special token that ends the turn whose words end before token `at`.
    fn end_of_turn(&self, text: &str, ids: &[u32], ranges: &[Range<usize>], at: usize) -> Result<usize, SampleError> {
        let blank = |&at: &usize| at < ids.len() && !self.is_special(ids, at) && Self::is_blank(text, ranges, at);
        let next = (at..).find(|at| !blank(at)).unwrap_or(at);
        let is_bos = self.tokenizer.bos() == ids.get(next).copied() && self.tokenizer.eos() != ids.get(next).copied();
        if self.is_special(ids, next) && !is_bos {
            return Ok(next + 1);
        }
        let after = ranges.get(at).and_then(|range| text.get(range.start..)).unwrap_or("nothing");
        Err(SampleError::NoEndOfTurn { after: after.chars().take(24).collect::<String>().escape_debug().to_string() })
    }

    /// The special token at the end of trained tokens, but for white space after it.
    fn closing(&self, text: &str, ids: &[u32], ranges: &[Range<usize>], trained: Range<usize>) -> Option<u32> {
        let last = trained.rev().find(|&at| self.is_special(ids, at) || !Self::is_blank(text, ranges, at))?;
        ids.get(last).copied().filter(|_| self.is_special(ids, last))
    }
}
