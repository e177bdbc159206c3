//! Owns finding what a rendered chat has of each trained message, for any template; never touches token ids.
//!
//! Templates that mark the assistant's words with `{% generation %}` say it themselves: the marks become a filter that
//! puts a noncharacter at both ends. For others every trained text is replaced by a mark of its own and the chat is
//! rendered once more: what stands around the marks is what the template writes, and must be found again, in order, in
//! the true rendering. Where a template changes the text in a way that cannot be followed so, the messages are tried one
//! at a time: what is before and after the mark must begin and end the true rendering.

use std::ops::Range;

use serde_json::Value as Json;

use super::{ChatError, ChatTemplate, MARKED_NAME, RenderOptions, TEMPLATE_NAME};

/// Begins and ends what a template marks; noncharacters, which no text may hold.
pub(super) const OPEN: char = '\u{fdd0}';
pub(super) const CLOSE: char = '\u{fdd1}';
/// Most messages whose place is looked for one at a time.
const MAX_SINGLE: usize = 64;
/// The role that `{% generation %}` marks.
const ASSISTANT: &str = "assistant";

/// A rendered chat and what of it is learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainedText {
    /// The chat as [`ChatTemplate::render`] gives it.
    pub text: String,
    /// Byte ranges of the trained messages' words, in order, none of them empty.
    pub spans: Vec<Range<usize>>,
    /// The ranges are those of `{% generation %}` marks, and so hold the end of the turn as well.
    pub marked: bool,
}

impl ChatTemplate {
    /// Whether the template marks what the assistant writes with `{% generation %}`.
    pub fn has_generation_marks(&self) -> bool {
        self.marked
    }

    /// Renders `messages` and finds the words of those that are `trained` (one entry a message). Marks of the template
    /// are used when the trained messages are messages of the assistant; they are then `marked`.
    ///
    /// # Errors
    /// Everything that [`ChatTemplate::render`] refuses, and [`ChatError::NoSpan`] when the template does not show where
    /// a trained message stands.
    pub fn render_trained(
        &self,
        messages: &[Json],
        trained: &[bool],
        options: RenderOptions,
    ) -> Result<TrainedText, ChatError> {
        let text = self.render_as(TEMPLATE_NAME, messages, options)?;
        if text.contains([OPEN, CLOSE]) {
            let reason = "its text holds the noncharacter U+FDD0 or U+FDD1".to_owned();
            return Err(ChatError::NoSpan { message: 1, reason });
        }
        let is_trained = |at: usize| trained.get(at).copied().unwrap_or(false);
        let role = |message: &Json| message.get("role").and_then(Json::as_str).unwrap_or_default() == ASSISTANT;
        let only_assistant = messages.iter().enumerate().all(|(i, message)| !is_trained(i) || role(message));
        if self.marked && only_assistant {
            let assistant: Vec<bool> =
                messages.iter().enumerate().filter(|(_, m)| role(m)).map(|(i, _)| is_trained(i)).collect();
            let spans = self.marked_spans(messages, options, &text, &assistant)?;
            return Ok(TrainedText { text, spans, marked: true });
        }
        let contents: Vec<(usize, &str)> = messages
            .iter()
            .enumerate()
            .filter(|(i, _)| is_trained(*i))
            .map(|(i, message)| (i, message.get("content").and_then(Json::as_str).unwrap_or_default()))
            .collect();
        let spans = self.spans_of_contents(messages, &contents, options, &text)?;
        Ok(TrainedText { text, spans, marked: false })
    }

    /// The ranges that the template marks; `wanted` says of each message of the assistant whether it is trained.
    fn marked_spans(
        &self,
        messages: &[Json],
        options: RenderOptions,
        text: &str,
        wanted: &[bool],
    ) -> Result<Vec<Range<usize>>, ChatError> {
        let broken = |reason: &str| ChatError::Marks { reason: reason.to_owned() };
        let marked = self.render_as(MARKED_NAME, messages, options)?;
        let (mut plain, mut spans) = (String::with_capacity(text.len()), Vec::new());
        let mut open = None;
        for part in marked.split_inclusive([OPEN, CLOSE]) {
            plain.push_str(part.trim_end_matches([OPEN, CLOSE]));
            match (part.chars().next_back(), open) {
                (Some(OPEN), None) => open = Some(plain.len()),
                (Some(CLOSE), Some(start)) => {
                    spans.push(start..plain.len());
                    open = None;
                }
                (Some(OPEN | CLOSE), _) => return Err(broken("they lie inside each other")),
                _ => {}
            }
        }
        if open.is_some() || plain != text {
            return Err(broken("what they enclose is changed further on, so their ends are lost"));
        }
        if wanted.iter().all(|&trained| trained) {
            spans.retain(|span| !span.is_empty());
            return Ok(spans);
        }
        if spans.len() != wanted.len() {
            return Err(broken("it does not mark each message of the assistant once"));
        }
        let wanted = spans.into_iter().zip(wanted).filter(|(span, trained)| **trained && !span.is_empty());
        Ok(wanted.map(|(span, _)| span).collect())
    }

    fn spans_of_contents(
        &self,
        messages: &[Json],
        contents: &[(usize, &str)],
        options: RenderOptions,
        text: &str,
    ) -> Result<Vec<Range<usize>>, ChatError> {
        let nonce = blake3::hash(text.as_bytes()).to_hex();
        let nonce = nonce.get(..12).unwrap_or_default();
        let mark = |message: usize| format!("jz{nonce}m{message}z");
        let all: Vec<usize> = contents.iter().map(|(message, _)| *message).collect();
        let around = self.around_marks(messages, &all, options, &mark)?;
        if let Some(spans) = follow(text, &around, contents) {
            return Ok(spans);
        }
        if contents.len() > MAX_SINGLE {
            let (message, reason) = (1, "the template changes what messages say".to_owned());
            return Err(ChatError::NoSpan { message, reason });
        }
        let mut spans: Vec<Range<usize>> = Vec::new();
        for &(message, _) in contents {
            let no_span = |reason: &str| ChatError::NoSpan { message: message + 1, reason: reason.to_owned() };
            let around = self.around_marks(messages, &[message], options, &mark)?;
            let [before, after] = around.as_slice() else { return Err(no_span("its mark is lost")) };
            let whole = text.starts_with(before.as_str()) && text.ends_with(after.as_str());
            let end = text.len().saturating_sub(after.len());
            if !whole || before.len() >= end || spans.last().is_some_and(|last| last.end > before.len()) {
                return Err(no_span("what the template writes around it depends on what it says"));
            }
            spans.push(before.len()..end);
        }
        Ok(spans)
    }

    /// What the template writes before, between and after the texts of messages `replaced`: one piece more than messages.
    fn around_marks(
        &self,
        messages: &[Json],
        replaced: &[usize],
        options: RenderOptions,
        mark: &dyn Fn(usize) -> String,
    ) -> Result<Vec<String>, ChatError> {
        let mut marked = messages.to_vec();
        for &message in replaced {
            if let Some(content) = marked.get_mut(message).and_then(|message| message.get_mut("content")) {
                *content = mark(message).into();
            }
        }
        let rendered = self.render_as(TEMPLATE_NAME, &marked, options)?;
        let mut rest = rendered.as_str();
        let mut pieces = Vec::with_capacity(replaced.len() + 1);
        for &message in replaced {
            let mark = mark(message);
            let no_span = |reason: &str| ChatError::NoSpan { message: message + 1, reason: reason.to_owned() };
            let (before, after) = rest.split_once(&mark).ok_or_else(|| no_span("the template does not show it"))?;
            if after.contains(&mark) || before.contains(&mark) {
                return Err(no_span("the template shows it more than once"));
            }
            pieces.push(before.to_owned());
            rest = after;
        }
        pieces.push(rest.to_owned());
        Ok(pieces)
    }
}

/// Finds each content, as it is or without white space at its ends, between the pieces around it.
fn follow(text: &str, around: &[String], contents: &[(usize, &str)]) -> Option<Vec<Range<usize>>> {
    let (first, between) = around.split_first()?;
    let mut at = first.len();
    let mut rest = text.strip_prefix(first.as_str())?;
    let mut spans = Vec::with_capacity(contents.len());
    for (position, (piece, (_, content))) in between.iter().zip(contents).enumerate() {
        let last = position + 1 == contents.len();
        let fits = |said: &&str| {
            let after = rest.strip_prefix(*said);
            after.is_some_and(|after| if last { after == piece } else { after.starts_with(piece.as_str()) })
        };
        let said = [*content, content.trim(), content.trim_end(), content.trim_start()].into_iter().find(fits)?;
        if said.is_empty() {
            return None;
        }
        spans.push(at..at + said.len());
        at += said.len() + piece.len();
        rest = text.get(at..)?;
    }
    rest.is_empty().then_some(spans)
}
