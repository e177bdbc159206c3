//! Owns Arabic lines whose letters stand in the order of the screen, from right to left, as some extractors leave them;
//! never touches a text without words that only such an order gives.

use std::borrow::Cow;

use super::lexicon::{Lexicon, is_arabic, is_mark, words};
use crate::normalize::{Changes, Rule};

/// Words that begin with a letter that only ends words, before lines are looked at.
const MIN_WRONG_STARTS: u32 = 2;
/// Share of the Arabic words that must begin so: one in five Arabic words ends with ة or ى.
const MIN_SHARE: f32 = 0.02;

/// Letters of a word whose article is looked for.
const MIN_ARTICLE_WORD: u32 = 5;
/// Words that end with an article turned round, before lines are looked at; they must be twice as many as sound ones.
const MIN_TURNED_ARTICLES: u32 = 3;

/// Turns lines round that are Arabic only from the other end. Borrows when there are none.
/// `order` is that of the text, where it is known.
pub(super) fn decode<'a>(
    text: &'a str,
    order: Option<&Order>,
    lexicon: &Lexicon,
    changes: &mut Changes,
) -> Cow<'a, str> {
    if !order.map_or_else(|| Order::of(text).is_wrong(), Order::is_wrong) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut count = 0;
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let turned = turned(line);
        if known(&turned, lexicon) > known(line, lexicon) {
            out.push_str(&turned);
            count += 1;
        } else {
            out.push_str(line);
        }
        out.push_str(end);
    }
    if count == 0 {
        return Cow::Borrowed(text);
    }
    changes.add(Rule::VisualOrder, count);
    Cow::Owned(out)
}

/// How often words begin with a letter that only ends words, and end as the article begins them.
#[derive(Debug, Default)]
pub(super) struct Order {
    wrong: u32,
    all: u32,
    /// Words of five letters and more that begin with ال, and that end with its letters turned round.
    articles: u32,
    turned_articles: u32,
    first: Option<char>,
    /// The first two letters of the word, the last two, and how many it has.
    start: [char; 2],
    last: [char; 2],
    length: u32,
}

impl Order {
    /// Takes the next character of an Arabic word.
    #[inline]
    pub fn push(&mut self, c: char, is_mark: bool) {
        match self.first {
            None => {
                self.all += 1;
                self.first = Some(c);
            }
            Some('ة' | 'ى') if !is_mark => {
                self.wrong += 1;
                self.first = Some(c);
            }
            Some(_) => {}
        }
        if !is_mark {
            self.last = [self.last[1], c];
            self.length += 1;
            if self.length == 2 {
                self.start = self.last;
            }
        }
    }

    /// The word is at its end.
    #[inline]
    pub fn end(&mut self) {
        if self.length >= MIN_ARTICLE_WORD {
            self.articles += u32::from(self.start == ['ا', 'ل']);
            self.turned_articles += u32::from(self.last == ['ل', 'ا']);
        }
        (self.first, self.length) = (None, 0);
    }

    fn of(text: &str) -> Order {
        let mut order = Order::default();
        for c in text.chars() {
            if is_arabic(c) { order.push(c, is_mark(c)) } else { order.end() }
        }
        order.end();
        order
    }

    fn is_wrong(&self) -> bool {
        let turned = self.turned_articles;
        turned >= MIN_TURNED_ARTICLES && turned > 2 * self.articles
            || self.wrong >= MIN_WRONG_STARTS && self.wrong as f32 >= MIN_SHARE * self.all as f32
    }
}

/// Words of a line that the list holds, of three letters or more.
fn known(line: &str, lexicon: &Lexicon) -> usize {
    words(line).filter(|word| word.len() >= 6 && lexicon.contains(word)).count()
}

/// The line from its other end; numbers and Latin words keep their own order, brackets are mirrored.
fn turned(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    // A number or Latin word as it comes from the end, and what may stand inside one when more of it follows.
    let (mut word, mut between) = (String::new(), String::new());
    for c in line.chars().rev() {
        if c.is_alphanumeric() && !is_arabic(c) {
            word.push_str(&between);
            between.clear();
            word.push(c);
        } else if !word.is_empty() && matches!(c, '.' | ',' | '/' | ':' | '-' | '%' | '@') {
            between.push(c);
        } else {
            flush(&mut out, &mut word, &mut between);
            out.push(mirrored(c));
        }
    }
    flush(&mut out, &mut word, &mut between);
    out
}

fn flush(out: &mut String, word: &mut String, between: &mut String) {
    out.extend(word.chars().rev());
    out.push_str(between);
    word.clear();
    between.clear();
}

fn mirrored(c: char) -> char {
    match c {
        '(' => ')',
        ')' => '(',
        '[' => ']',
        ']' => '[',
        '{' => '}',
        '}' => '{',
        '«' => '»',
        '»' => '«',
        '<' => '>',
        '>' => '<',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_in_screen_order_are_turned() {
        let text = "المملكة المغربية، الجريدة الرسمية (عدد 2015.12)\nالقانون رقم 47.06 المتعلق بالمالية\nBonjour";
        let screen: Vec<String> = text.lines().map(turned).collect();
        let screen = screen.join("\n").replace(&turned("Bonjour"), "Bonjour");
        assert_ne!(screen, text);
        let mut changes = Changes::default();
        assert_eq!(decode(&screen, None, Lexicon::built_in(), &mut changes), text);
        assert_eq!(changes.count(Rule::VisualOrder), 2);
        assert!(matches!(decode(text, None, Lexicon::built_in(), &mut changes), Cow::Borrowed(_)));
    }

    #[test]
    fn numbers_keep_their_order() {
        assert_eq!(turned("47.06 مقر (أ)"), "(أ) رقم 47.06");
        assert_eq!(turned("a.b, 12"), "12 ,a.b");
    }

    #[test]
    fn long_lines_take_linear_time_in_words() {
        let line = "ةملك ".repeat(20_000);
        assert_eq!(turned(&turned(&line)), line);
    }
}
