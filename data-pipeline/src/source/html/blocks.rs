//! Owns cutting a page into blocks of text that know where they stand; never chooses among them.

use std::convert::Infallible;

use html5gum::Tokenizer;
use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};

use super::hints::{
    is_content, is_frame, is_frame_role, is_inline, is_skipped, is_void, names_frame, reserves_mining, robots_opt_out,
};
use super::select::select;

/// Open elements that are remembered; those further in inherit from the last of them.
const MAX_DEPTH: usize = 256;
/// Bytes of an attribute's value that are looked at.
const MAX_VALUE_BYTES: usize = 1024;
/// Blocks of a page at most; what follows is cut off.
const MAX_BLOCKS: usize = 200_000;

/// What a page says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Its main text, paragraphs apart by a blank line; empty when it has none.
    pub text: String,
    pub title: String,
    /// The `lang` of its outermost element.
    pub lang: Option<String>,
    /// By which tag its publisher forbids training.
    pub opt_out: Option<&'static str>,
}

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Paragraph,
    Heading,
    Item,
}

/// A run of text between two elements that begin blocks.
#[derive(Debug)]
pub(super) struct Block {
    pub text: String,
    pub kind: Kind,
    /// Letters, and how many of them are inside links.
    pub letters: usize,
    pub link_letters: usize,
    /// Inside an element of the page's frame by its tag or role.
    pub frame: bool,
    /// Inside an element whose class or identifier names the frame.
    pub hinted: bool,
    /// Inside `main` or `article`.
    pub content: bool,
    /// Number of the innermost element around it that may hold several blocks.
    pub container: u32,
}

/// Reads a page.
pub(crate) fn read_page(html: &str) -> Page {
    let mut reader = Reader::default();
    let mut emitter = CallbackEmitter::new(|event: CallbackEvent<'_>, _: html5gum::Span<()>| -> Option<Infallible> {
        reader.event(&event);
        None
    });
    emitter.naively_switch_states(true);
    // Nothing is handed out, and a string cannot fail to be read.
    let Ok(()) = Tokenizer::new_with_emitter(html, emitter).finish();
    reader.close_block();
    let collapsed = reader.title.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    Page { text: select(&reader.blocks), title: collapsed, lang: reader.lang, opt_out: reader.opt_out }
}

/// An open element, with what it inherits from those around it.
#[derive(Clone)]
struct Open {
    name: Vec<u8>,
    skipped: bool,
    frame: bool,
    hinted: bool,
    content: bool,
    preformatted: bool,
    container: u32,
}

/// A start tag as it is read.
#[derive(Default)]
struct Tag {
    name: Vec<u8>,
    attribute: Vec<u8>,
    frame: bool,
    hidden: bool,
    hinted: bool,
    lang: Option<String>,
    /// Of `meta`: name and content.
    meta: (String, String),
}

#[derive(Default)]
struct Reader {
    tag: Option<Tag>,
    open: Vec<Open>,
    /// Elements inside the last of `open` that are not remembered.
    deeper: usize,
    in_link: bool,
    in_title: bool,
    /// The last thing read was a line break.
    broken: bool,
    text: String,
    letters: usize,
    link_letters: usize,
    kind: Option<Kind>,
    containers: u32,
    blocks: Vec<Block>,
    title: String,
    lang: Option<String>,
    opt_out: Option<&'static str>,
}

impl Reader {
    fn event(&mut self, event: &CallbackEvent<'_>) {
        match event {
            CallbackEvent::OpenStartTag { name } => self.tag = Some(Tag { name: name.to_vec(), ..Tag::default() }),
            CallbackEvent::AttributeName { name } => {
                if let Some(tag) = &mut self.tag {
                    tag.attribute = name.to_vec();
                    tag.hidden |= *name == b"hidden";
                }
            }
            CallbackEvent::AttributeValue { value } => {
                if let Some(tag) = &mut self.tag {
                    tag.value(value.get(..MAX_VALUE_BYTES).unwrap_or(value));
                }
            }
            CallbackEvent::CloseStartTag { self_closing } => {
                if let Some(tag) = self.tag.take() {
                    self.start(tag, *self_closing);
                }
            }
            CallbackEvent::EndTag { name } => {
                self.tag = None;
                self.end(name);
            }
            CallbackEvent::String { value } => self.string(&String::from_utf8_lossy(value)),
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag, self_closing: bool) {
        let name = tag.name.as_slice();
        match name {
            b"meta" => return self.meta(&tag.meta),
            b"html" if self.lang.is_none() => self.lang.clone_from(&tag.lang),
            b"title" if self.title.is_empty() && !self.inside(b"svg") => self.in_title = true,
            b"br" => return self.line_break(),
            _ => {}
        }
        // A page may leave out the tags that end its head and begin its body.
        let of_head = matches!(name, b"html" | b"head" | b"meta" | b"link" | b"base" | b"title") || is_skipped(name);
        if !of_head && self.open.len() <= 3 {
            self.open.retain(|open| open.name != b"head");
        }
        if !is_inline(name) && !is_skipped(name) {
            self.close_block();
            self.in_link = false;
            self.close_implied(name);
            self.kind = match name {
                [b'h', b'1'..=b'6'] => Some(Kind::Heading),
                b"li" | b"dt" | b"dd" | b"td" | b"th" => Some(Kind::Item),
                _ => None,
            };
        }
        if name == b"a" {
            self.in_link = true;
        }
        if is_void(name) || self_closing && self.inside(b"svg") {
            return;
        }
        // Inline elements matter only when they hide what is inside, or stand inside one of their name that does.
        let near = self.open.iter().rev().take(4).any(|open| open.name == name);
        if is_inline(name) && !tag.hidden && !tag.frame && !tag.hinted && !near {
            return;
        }
        if self.open.len() < MAX_DEPTH {
            let open = self.inherit(&tag);
            self.open.push(open);
        } else if !is_inline(name) {
            self.deeper += 1;
        }
    }

    fn inherit(&mut self, tag: &Tag) -> Open {
        let name = tag.name.as_slice();
        let around = self.open.last();
        let content = around.is_some_and(|open| open.content) || is_content(name);
        // The names of the outermost elements speak of the whole page ("with-sidebar").
        let trusted = !matches!(name, b"html" | b"body" | b"main" | b"article");
        let holds_blocks = matches!(name, b"div" | b"section" | b"article" | b"main" | b"td" | b"body" | b"blockquote");
        if holds_blocks {
            self.containers += 1;
        }
        Open {
            name: name.to_vec(),
            skipped: around.is_some_and(|open| open.skipped)
                || is_skipped(name)
                || (tag.hidden && trusted)
                // A piece of a block has no flags of its own: "[edit]" after a heading, a button for sharing.
                || (is_inline(name) && (tag.frame || tag.hinted)),
            frame: around.is_some_and(|open| open.frame) || is_frame(name, content) || (tag.frame && trusted),
            hinted: around.is_some_and(|open| open.hinted) || (tag.hinted && trusted),
            content,
            preformatted: around.is_some_and(|open| open.preformatted) || name == b"pre",
            container: if holds_blocks { self.containers } else { around.map_or(0, |open| open.container) },
        }
    }

    fn inside(&self, name: &[u8]) -> bool {
        self.open.iter().any(|open| open.name == name)
    }

    /// Ends elements that this one ends without an end tag.
    fn close_implied(&mut self, name: &[u8]) {
        let ended: &[&[u8]] = match name {
            b"li" => &[b"li"],
            b"dt" | b"dd" => &[b"dt", b"dd"],
            b"tr" => &[b"td", b"th", b"tr"],
            b"td" | b"th" => &[b"td", b"th"],
            _ => &[b"p"],
        };
        let p: &[u8] = b"p";
        while let Some(last) = self.open.last() {
            let last = last.name.as_slice();
            if self.deeper == 0 && (ended.contains(&last) || last == p || matches!(last, [b'h', b'1'..=b'6'])) {
                self.open.pop();
            } else {
                break;
            }
        }
    }

    fn end(&mut self, name: &[u8]) {
        match name {
            b"a" => return self.in_link = false,
            b"title" => self.in_title = false,
            b"br" => return self.line_break(),
            _ => {}
        }
        if !is_inline(name) && !is_skipped(name) {
            self.close_block();
            self.kind = None;
        }
        if self.deeper > 0 && !is_inline(name) {
            self.deeper -= 1;
            return;
        }
        // An end tag without its start tag ends nothing; one that skips others ends them all, up to a table cell.
        for (i, open) in self.open.iter().enumerate().rev() {
            if open.name == name {
                self.open.truncate(i);
                return;
            }
            if matches!(open.name.as_slice(), b"td" | b"th" | b"body") && !matches!(name, b"tr" | b"table" | b"html") {
                return;
            }
        }
    }

    fn meta(&mut self, (name, content): &(String, String)) {
        let found = match name.as_str() {
            "tdm-reservation" if reserves_mining(content) => Some("tdm-reservation"),
            name if name.ends_with("robots") || name.ends_with("bot") || name == "ai" => robots_opt_out(content),
            _ => None,
        };
        self.opt_out = self.opt_out.or(found);
    }

    /// Two line breaks in a row end a block, as many pages use them.
    fn line_break(&mut self) {
        if self.broken {
            let (kind, link) = (self.kind, self.in_link);
            self.close_block();
            (self.kind, self.in_link) = (kind, link);
        } else if !self.text.is_empty() {
            while self.text.ends_with(' ') {
                self.text.pop();
            }
            self.text.push('\n');
            self.broken = true;
        }
    }

    fn string(&mut self, value: &str) {
        if self.in_title && self.title.len() < MAX_VALUE_BYTES {
            self.title.push_str(value);
            return;
        }
        let (skipped, preformatted) = self.open.last().map_or((false, false), |open| (open.skipped, open.preformatted));
        if skipped {
            return;
        }
        for c in value.chars() {
            match c {
                '\n' if preformatted => self.text.push(c),
                ' ' | '\t' | '\n' | '\r' | '\x0c' => {
                    if !self.text.is_empty() && !self.text.ends_with([' ', '\n']) {
                        self.text.push(' ');
                    }
                    continue;
                }
                _ => self.text.push(c),
            }
            self.broken = false;
            if c.is_alphabetic() {
                self.letters += 1;
                self.link_letters += usize::from(self.in_link);
            }
        }
    }

    fn close_block(&mut self) {
        self.broken = false;
        let (letters, link_letters) = (std::mem::take(&mut self.letters), std::mem::take(&mut self.link_letters));
        let text = std::mem::take(&mut self.text);
        let text = text.trim_matches([' ', '\n']);
        if letters == 0 || self.blocks.len() >= MAX_BLOCKS {
            return;
        }
        let (frame, hinted, content, container) =
            self.open.last().map_or((false, false, false, 0), |o| (o.frame, o.hinted, o.content, o.container));
        let kind = self.kind.unwrap_or(Kind::Paragraph);
        let text = text.to_owned();
        self.blocks.push(Block { text, kind, letters, link_letters, frame, hinted, content, container });
    }
}

impl Tag {
    fn value(&mut self, value: &[u8]) {
        let text = || String::from_utf8_lossy(value).trim().to_owned();
        match self.attribute.as_slice() {
            b"class" => self.hinted |= text().split_ascii_whitespace().any(names_frame),
            b"id" => self.hinted |= names_frame(&text()),
            b"role" => self.frame |= is_frame_role(value.to_ascii_lowercase().trim_ascii()),
            b"aria-hidden" => self.hidden |= value == b"true",
            b"hidden" => self.hidden |= value != b"until-found",
            b"style" => {
                let style: String = text().to_ascii_lowercase().split_ascii_whitespace().collect();
                self.hidden |= style.contains("display:none") || style.contains("visibility:hidden");
            }
            b"lang" | b"xml:lang" if self.name == b"html" => self.lang = Some(text()),
            b"name" | b"property" if self.name == b"meta" => self.meta.0 = text().to_ascii_lowercase(),
            b"content" if self.name == b"meta" => self.meta.1 = text(),
            _ => {}
        }
    }
}
