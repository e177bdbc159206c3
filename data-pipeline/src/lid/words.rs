//! Owns how a text is cut into sentences and words; never judges a language.
//!
//! A word holds letters of one script; digits stay inside Latin words (`3lach`, `m9wd`). Addresses, handles, numbers
//! and place-holders are no words. Three and more equal letters in a row count as one (`bzaaaaf`).

use unicode_normalization::char::compose;

use super::script::{Class, NUM_SCRIPTS, Script, class, table};

/// Letters of a word that are looked at; longer words are no words of a language.
pub const MAX_WORD_LETTERS: usize = 32;

const ALEF: u32 = 0x627;

/// Words after which a sentence is cut even without a stop, so that time and memory stay linear.
const MAX_SENTENCE_WORDS: usize = 64;

/// One word of a sentence.
#[derive(Debug, Clone, Copy)]
pub struct Word {
    /// First byte of the word in the text.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
    /// Script of its letters.
    pub script: Script,
    /// Whether its first letter was upper case.
    pub capital: bool,
    /// Where the folded letters start in [`Sentence::letters`].
    from: u32,
    /// One past the last folded letter.
    to: u32,
}

/// A sentence: words and what stands between them, in counts.
#[derive(Debug, Default, Clone)]
pub struct Sentence {
    /// The words in order.
    pub words: Vec<Word>,
    /// Folded letters of all words.
    letters: Vec<u32>,
    /// Letters in words, by number of the script.
    pub script_letters: [u32; NUM_SCRIPTS],
    /// Digits outside words.
    pub digits: u32,
    /// Characters that programs are full of: braces, semicolons, equal signs.
    pub symbols: u32,
    /// Other characters that are neither letters nor white space.
    pub others: u32,
    /// Short vowels and tanwin written on Arabic letters.
    pub vowels: u32,
    /// Words that end in tanwin.
    pub tanwin: u32,
}

impl Sentence {
    /// Folded letters of a word.
    pub fn letters(&self, word: &Word) -> &[u32] {
        self.letters.get(word.from as usize..word.to as usize).unwrap_or_default()
    }

    /// Letters in all words.
    pub fn num_letters(&self) -> u32 {
        self.script_letters.iter().sum()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty() && self.digits + self.symbols + self.others == 0
    }

    fn clear(&mut self) {
        self.words.clear();
        self.letters.clear();
        self.script_letters = [0; NUM_SCRIPTS];
        (self.digits, self.symbols, self.others) = (0, 0, 0);
        (self.vowels, self.tanwin) = (0, 0);
    }
}

/// Calls `each` with every sentence of `text`, in order.
pub fn sentences(text: &str, mut each: impl FnMut(&Sentence)) {
    let mut cutter =
        Cutter { table: table(), sentence: Sentence::default(), open: None, run: (0, 0), hyphen: None, tanwin: None };
    let mut skip_to = 0;
    let mut stop = false;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        if at < skip_to {
            continue;
        }
        let class = class(cutter.table, c);
        if stop && matches!(class, Class::Space | Class::Line) || class == Class::Line || cutter.is_long(class) {
            cutter.close(at);
            if !cutter.sentence.is_empty() {
                each(&cutter.sentence);
            }
            cutter.sentence.clear();
        }
        stop = class == Class::Stop || stop && !matches!(class, Class::Letter(..) | Class::Digit(_) | Class::Space);
        if matches!(c, 'h' | 'H' | 'w' | 'W' | '@' | '%' | '$' | '<' | '&')
            && let Some(end) = unspoken(text, at, c, before)
        {
            cutter.close(at);
            cutter.sentence.others += 1;
            skip_to = end;
            before = ' ';
            continue;
        }
        cutter.push(at, c, class);
        before = c;
    }
    cutter.close(text.len());
    if !cutter.sentence.is_empty() {
        each(&cutter.sentence);
    }
}

/// End of an address, handle or place-holder that starts at `at`.
fn unspoken(text: &str, at: usize, c: char, before: char) -> Option<usize> {
    let rest = text.as_bytes().get(at..)?;
    let is_start = || !before.is_alphanumeric();
    let found = match c {
        'h' | 'H' => rest.len() > 7 && (starts(rest, b"http://") || starts(rest, b"https://")) && is_start(),
        'w' | 'W' => starts(rest, b"www.") && is_start(),
        '@' => rest.get(1).is_some_and(u8::is_ascii_alphanumeric),
        '%' | '$' => rest.get(1).is_some_and(|b| b.is_ascii_alphanumeric()) && c != before,
        '<' => return tag_end(rest).map(|len| at + len),
        '&' => {
            let len = rest.iter().take(10).position(|b| *b == b';')?;
            return rest.get(1..len)?.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'#').then_some(at + len + 1);
        }
        _ => false,
    };
    let ends =
        |b: &u8| b.is_ascii_whitespace() || matches!(b, b'"' | b'<' | b'>') || (c != 'h' && c != 'H' && *b == b',');
    found.then(|| at + rest.iter().position(ends).unwrap_or(rest.len()))
}

fn starts(rest: &[u8], prefix: &[u8]) -> bool {
    rest.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

/// Length of a short markup tag.
fn tag_end(rest: &[u8]) -> Option<usize> {
    let opens = rest.get(1).is_some_and(|b| b.is_ascii_alphabetic() || *b == b'/');
    let end = rest.iter().take(120).position(|b| *b == b'>')?;
    opens.then_some(end + 1)
}

struct Cutter {
    table: &'static [Class],
    sentence: Sentence,
    open: Option<Word>,
    /// The last letter of the open word and how often it stood in a row.
    run: (u32, u32),
    /// Where a hyphen stands that the next word may take.
    hyphen: Option<usize>,
    /// Letters of the sentence that stand before the last tanwin.
    tanwin: Option<usize>,
}

impl Cutter {
    fn is_long(&self, class: Class) -> bool {
        let words = self.sentence.words.len() + usize::from(self.open.is_some());
        words >= MAX_SENTENCE_WORDS && class == Class::Space || words > 4 * MAX_SENTENCE_WORDS
    }

    fn push(&mut self, at: usize, c: char, class: Class) {
        match class {
            Class::Letter(script, folded) => self.letter(at, c, script, folded),
            Class::LookAlike(folded) => match self.open {
                Some(word) if word.script == Script::Latn => self.letter(at, c, Script::Latn, folded),
                _ => self.letter(at, c, Script::Grek, folded),
            },
            Class::Digit(folded) => self.digit(at, c, folded),
            Class::Ignore => {}
            Class::Vowel => self.sentence.vowels += 1,
            Class::Tanwin => {
                self.sentence.vowels += 1;
                self.tanwin = Some(self.sentence.letters.len());
            }
            Class::Mark(mark) => self.mark(mark),
            Class::Apostrophe => {
                if self.open.is_some() {
                    self.append(u32::from('\''));
                    self.close(at + c.len_utf8());
                } else {
                    self.sentence.others += 1;
                }
            }
            Class::Hyphen => {
                let after_word = self.open.is_some();
                self.close(at);
                self.hyphen = after_word.then_some(at);
                self.sentence.others += u32::from(!after_word);
            }
            Class::Space | Class::Line => self.close(at),
            Class::Stop => {
                self.close(at);
                self.sentence.others += 1;
            }
            Class::Other(of_code) => {
                self.close(at);
                if of_code {
                    self.sentence.symbols += 1;
                } else {
                    self.sentence.others += 1;
                }
            }
        }
        if !matches!(class, Class::Hyphen) {
            self.hyphen = None;
        }
    }

    fn letter(&mut self, at: usize, c: char, script: Script, folded: u32) {
        match &mut self.open {
            Some(word) if word.script == script => {}
            // A word of look-alikes that goes on in Latin letters was Latin all along.
            Some(word) if word.script == Script::Grek && script == Script::Latn => word.script = Script::Latn,
            _ => {
                self.close(at);
                self.begin(at, script, c.is_uppercase());
            }
        }
        self.append(folded);
    }

    fn begin(&mut self, at: usize, script: Script, capital: bool) {
        let from = self.sentence.letters.len() as u32;
        self.open = Some(Word { start: at, end: at, script, capital, from, to: from });
        self.run = (0, 0);
        if script == Script::Latn && self.hyphen.take().is_some() {
            self.append(u32::from('-'));
        }
    }

    fn digit(&mut self, at: usize, _: char, folded: u32) {
        match self.open {
            Some(word) if word.script == Script::Latn => self.append(folded),
            Some(_) => {
                self.close(at);
                self.sentence.digits += 1;
            }
            None => {
                self.begin(at, Script::Latn, false);
                self.append(folded);
            }
        }
    }

    fn mark(&mut self, mark: u32) {
        let Some(word) = self.open.filter(|word| word.script == Script::Latn) else { return };
        let last = self.sentence.letters.len();
        if last > word.from as usize
            && let Some(letter) = self.sentence.letters.last_mut()
            && let (Some(base), Some(mark)) = (char::from_u32(*letter), char::from_u32(mark))
            && let Some(composed) = compose(base, mark)
        {
            *letter = u32::from(composed);
            self.run.0 = *letter;
        }
    }

    fn append(&mut self, folded: u32) {
        let Some(word) = self.open else { return };
        self.run = if folded == self.run.0 { (folded, self.run.1 + 1) } else { (folded, 1) };
        let len = self.sentence.letters.len();
        match self.run.1 {
            1 | 2 if len - (word.from as usize) < MAX_WORD_LETTERS => self.sentence.letters.push(folded),
            3 if len > word.from as usize + 1 => self.sentence.letters.truncate(len - 1),
            _ => {}
        }
    }

    /// Ends the open word before byte `at`; digits without a letter are a number.
    fn close(&mut self, at: usize) {
        let Some(mut word) = self.open.take() else { return };
        let letters = self.sentence.letters.get(word.from as usize..).unwrap_or_default();
        let digits = letters.iter().filter(|l| (0x30..=0x39).contains(*l)).count();
        let spoken = letters.len() - digits;
        let is_word = spoken > 0 && (digits <= 3 || digits < spoken) && letters.iter().any(|l| *l > 0x39);
        if !is_word {
            self.sentence.digits += digits as u32;
            self.sentence.letters.truncate(word.from as usize);
            return;
        }
        // Some writers put tanwin where they mean shadda: only an ending counts, which may have an alef after it.
        let ends_in_tanwin = |after: usize| {
            let rest = self.sentence.letters.get(after..);
            after > word.from as usize && rest.is_some_and(|rest| rest.is_empty() || rest == [ALEF])
        };
        self.sentence.tanwin += u32::from(self.tanwin.take().is_some_and(ends_in_tanwin));
        (word.end, word.to) = (at, self.sentence.letters.len() as u32);
        if let Some(count) = self.sentence.script_letters.get_mut(word.script as usize) {
            *count += word.to - word.from;
        }
        self.sentence.words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<Vec<String>> {
        let mut all = Vec::new();
        sentences(text, |sentence| {
            let spell = |word: &Word| sentence.letters(word).iter().filter_map(|l| char::from_u32(*l)).collect();
            all.push(sentence.words.iter().map(spell).collect());
        });
        all
    }

    #[test]
    fn words_keep_their_digits_and_lose_what_is_not_spoken() {
        assert_eq!(cut("3lach m9wd, 2026 bzaaaaf!")[0], ["3lach", "m9wd", "bzaf"]);
        assert_eq!(cut("voir https://a.example/x?y et @me $1 %2$s fin")[0], ["voir", "et", "fin"]);
        assert_eq!(cut("l'école qu’il")[0], ["l'", "école", "qu'", "il"]);
        assert_eq!(cut("yenna-yas axxam-nni")[0], ["yenna", "-yas", "axxam", "-nni"]);
        assert_eq!(cut("Iⵉⵙⵙⵏⵥⴰ")[0], ["i", "ⵉⵙⵙⵏⵥⴰ"]);
        assert_eq!(cut("Γurwat e\u{301}te\u{301}")[0], ["ɣurwat", "été"]);
        assert_eq!(cut("<b>a &amp; b</b>")[0], ["a", "b"]);
    }

    #[test]
    fn sentences_end_at_stops_before_space_and_at_lines() {
        assert_eq!(cut("a b. c v1.2 d؟ e\nf").len(), 4);
        let long = "kelma ".repeat(1000);
        assert!(cut(&long).iter().all(|s| s.len() <= MAX_SENTENCE_WORDS));
        assert_eq!(cut(&long).concat().len(), 1000);
        assert!(cut(&"ab-".repeat(10_000)).iter().all(|s| s.len() <= 4 * MAX_SENTENCE_WORDS + 1));
        assert!(cut("").is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_cut_into_words_that_lie_in_order_inside_it(text in "\\PC{0,200}") {
            let mut end = 0;
            sentences(&text, |sentence| for word in &sentence.words {
                assert!(word.start >= end && word.end > word.start && text.is_char_boundary(word.start));
                assert!(text.is_char_boundary(word.end));
                end = word.end;
            });
            assert!(end <= text.len());
        }
    }
}
