//! Owns the lists of marker words and how a word is matched against them; never touches files.

use std::collections::HashMap;

use super::script::{Class, NUM_SCRIPTS, Script, class, table};

/// The lists that training takes; a trained model carries its own copy.
pub const BUILT_IN: &str = include_str!("lexicon.txt");

/// Most groups of one script: a match is a bit mask.
pub const MAX_GROUPS: usize = 32;

const WAW: u32 = 0x648;

/// Marker words by script and group.
#[derive(Debug, Default)]
pub struct Lexicon {
    scripts: [Lists; NUM_SCRIPTS],
    /// Words of each list line as written, for made-up training sentences: script, group, words.
    lines: Vec<(Script, usize, Vec<Vec<u32>>)>,
}

#[derive(Debug, Default)]
struct Lists {
    groups: Vec<String>,
    words: HashMap<u64, u32, ahash::RandomState>,
    /// By first letter; patterns that open with `*` or `?` stand under 0.
    patterns: HashMap<u32, Vec<Pattern>, ahash::RandomState>,
    /// Letters that mark a word wherever they stand in it, in rising order.
    letters: Vec<(u32, u32)>,
}

#[derive(Debug)]
struct Pattern {
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    min_len: usize,
    /// Nothing but the prefix.
    whole: bool,
    mask: u32,
    takes_out: bool,
}

impl Pattern {
    fn matches(&self, letters: &[u32]) -> bool {
        letters.len() >= self.min_len
            && (!self.whole || letters.len() == self.min_len)
            && letters.starts_with(&self.prefix)
            && letters.ends_with(&self.suffix)
    }
}

impl Lexicon {
    /// Parses the list format described at the top of `lexicon.txt`. Lines that do not fit it are passed over.
    pub fn parse(text: &str) -> Lexicon {
        let mut lexicon = Lexicon::default();
        let mut current: Option<(Script, usize)> = None;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                current = lexicon.open(name);
            } else if let Some((script, group)) = current {
                lexicon.line(script, group, line);
            }
        }
        lexicon
    }

    fn open(&mut self, name: &str) -> Option<(Script, usize)> {
        let (script, group) = name.split_once(' ')?;
        let script = Script::from_code(script)?;
        let groups = &mut self.scripts[script as usize].groups;
        if let Some(at) = groups.iter().position(|known| known == group) {
            return Some((script, at));
        }
        if groups.len() == MAX_GROUPS {
            return None;
        }
        groups.push(group.to_owned());
        Some((script, groups.len() - 1))
    }

    fn line(&mut self, script: Script, group: usize, line: &str) {
        let mask = 1u32 << group;
        let mut plain = Vec::new();
        let lists = &mut self.scripts[script as usize];
        for item in line.split_whitespace() {
            let (takes_out, body) = match item.strip_prefix('-') {
                // Latin lists hold clitics that start with a hyphen (`-nni`); only pattern lists take words out.
                Some(rest) if script != Script::Latn || lists.is_pattern_group(group) => (true, rest),
                _ => (false, item),
            };
            if !body.contains(['*', '?']) && !takes_out {
                let letters = fold(body);
                *lists.words.entry(word_hash(&letters)).or_default() |= mask;
                plain.push(letters);
                continue;
            }
            if let Some(letter) = single_letter(body) {
                lists.mark_letter(letter, mask);
                continue;
            }
            let pattern = parse_pattern(body, mask, takes_out);
            // Signs fold to nothing; a pattern without a letter would match every word.
            if pattern.prefix.is_empty() && pattern.suffix.is_empty() {
                continue;
            }
            lists.patterns.entry(pattern.prefix.first().copied().unwrap_or(0)).or_default().push(pattern);
        }
        if !plain.is_empty() {
            self.lines.push((script, group, plain));
        }
    }

    /// Names of the groups of a script, in the order of the bits of [`Self::find`].
    pub fn groups(&self, script: Script) -> &[String] {
        &self.scripts[script as usize].groups
    }

    /// The plain words of a group, one entry for each line of the list.
    pub fn lines(&self, script: Script, group: &str) -> Vec<&[Vec<u32>]> {
        let at = self.groups(script).iter().position(|known| known == group);
        self.lines.iter().filter(|l| l.0 == script && Some(l.1) == at).map(|l| l.2.as_slice()).collect()
    }

    /// Groups that a folded word belongs to, as a bit mask.
    pub fn find(&self, script: Script, letters: &[u32]) -> u32 {
        let lists = &self.scripts[script as usize];
        let found = lists.find(letters);
        if found == 0 && script == Script::Arab && letters.len() > 3 && letters.first() == Some(&WAW) {
            return lists.find(letters.get(1..).unwrap_or_default());
        }
        found
    }
}

impl Lists {
    fn is_pattern_group(&self, group: usize) -> bool {
        self.groups.get(group).is_some_and(|name| name.ends_with("pattern"))
    }

    fn find(&self, letters: &[u32]) -> u32 {
        let mut found = self.words.get(&word_hash(letters)).copied().unwrap_or(0);
        let (mut by_pattern, mut taken_out) = (0, 0);
        for key in [letters.first().copied().unwrap_or(0), 0] {
            for pattern in self.patterns.get(&key).into_iter().flatten() {
                if pattern.matches(letters) {
                    *(if pattern.takes_out { &mut taken_out } else { &mut by_pattern }) |= pattern.mask;
                }
            }
        }
        found |= by_pattern & !taken_out;
        if !self.letters.is_empty() {
            found |= letters.iter().filter(|l| !is_basic(**l)).fold(0, |mask, l| mask | self.mask_of_letter(*l));
        }
        found
    }

    fn mark_letter(&mut self, letter: u32, mask: u32) {
        match self.letters.binary_search_by_key(&letter, |(l, _)| *l) {
            Ok(at) => self.letters.iter_mut().skip(at).take(1).for_each(|(_, m)| *m |= mask),
            Err(at) => self.letters.insert(at, (letter, mask)),
        }
    }

    fn mask_of_letter(&self, letter: u32) -> u32 {
        let found = self.letters.binary_search_by_key(&letter, |(l, _)| *l);
        found.ok().and_then(|at| self.letters.get(at)).map_or(0, |(_, mask)| *mask)
    }
}

/// Letters of English and of Standard Arabic, which mark nothing.
fn is_basic(letter: u32) -> bool {
    letter < 0x80 || (0x621..=0x64A).contains(&letter)
}

/// The letter of `*x*`.
fn single_letter(body: &str) -> Option<u32> {
    let letters = fold(body.strip_prefix('*')?.strip_suffix('*')?);
    match letters.as_slice() {
        [letter] => Some(*letter),
        _ => None,
    }
}

fn parse_pattern(body: &str, mask: u32, takes_out: bool) -> Pattern {
    let any = body.matches('?').count();
    let whole = !body.contains('*') && any == 0;
    let cut = body.find(['*', '?']).unwrap_or(body.len());
    let prefix = fold(body.get(..cut).unwrap_or_default());
    let tail = body.rfind(['*', '?']).map_or("", |at| body.get(at + 1..).unwrap_or_default());
    let suffix = fold(tail);
    Pattern { min_len: prefix.len() + any + suffix.len(), prefix, suffix, whole, mask, takes_out }
}

/// Folded letters of a listed word, with digits, hyphen and apostrophe as the word cutter gives them.
pub fn fold(word: &str) -> Vec<u32> {
    let fold = |c: char| match class(table(), c) {
        Class::Letter(_, folded) | Class::LookAlike(folded) | Class::Digit(folded) => Some(folded),
        Class::Apostrophe => Some(u32::from('\'')),
        Class::Hyphen => Some(u32::from('-')),
        _ => None,
    };
    word.chars().filter_map(fold).collect()
}

/// FNV-1a over code points.
fn word_hash(letters: &[u32]) -> u64 {
    letters.iter().fold(0xcbf2_9ce4_8422_2325, |h, l| (h ^ u64::from(*l)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(lexicon: &Lexicon, script: Script, word: &str) -> Vec<String> {
        let mask = lexicon.find(script, &fold(word));
        let names = lexicon.groups(script).iter().enumerate();
        names.filter(|(at, _)| mask >> at & 1 == 1).map(|(_, name)| name.clone()).collect()
    }

    #[test]
    fn words_patterns_and_exceptions() {
        let lexicon = Lexicon::parse(
            "[Latn a]\nDyal -nni *ß*\n[Latn bpattern]\nka???* ma*ch -kann*\n[Arab c]\nباش كي??* -كيف*\n",
        );
        assert_eq!(groups(&lexicon, Script::Latn, "Straße"), ["a"]);
        assert!(groups(&lexicon, Script::Latn, "strasse").is_empty());
        assert_eq!(groups(&lexicon, Script::Latn, "DYAL"), ["a"]);
        assert_eq!(groups(&lexicon, Script::Latn, "-nni"), ["a"]);
        assert_eq!(groups(&lexicon, Script::Latn, "kaydir"), ["bpattern"]);
        assert!(groups(&lexicon, Script::Latn, "kanna").is_empty());
        assert!(groups(&lexicon, Script::Latn, "kay").is_empty());
        assert_eq!(groups(&lexicon, Script::Latn, "mach"), ["bpattern"]);
        assert_eq!(groups(&lexicon, Script::Arab, "وكيدير"), ["c"]);
        assert_eq!(groups(&lexicon, Script::Arab, "وباش"), ["c"]);
        assert!(groups(&lexicon, Script::Arab, "كيفية").is_empty());
        let signs = Lexicon::parse("[Arab signs]\n*۽* *؟* *ٻ*\n");
        assert!(groups(&signs, Script::Arab, "كتاب").is_empty() && groups(&signs, Script::Arab, "ٻار") == ["signs"]);
    }

    #[test]
    fn the_built_in_lists_hold_what_a_reader_expects() {
        let lexicon = Lexicon::parse(BUILT_IN);
        for (word, group) in [("ديال", "ary"), ("الذي", "arb"), ("برشا", "aeb"), ("كيكتبو", "arypattern")]
        {
            assert!(groups(&lexicon, Script::Arab, word).contains(&group.to_owned()), "{word}");
        }
        for word in ["كتاب", "كيفية", "غيرها", "كنت", "الكتاب", "مكتبة", "تيار"] {
            let found = groups(&lexicon, Script::Arab, word);
            assert!(!found.iter().any(|g| g.starts_with("ary") || g == "undletters"), "{word}: {found:?}");
        }
        for (word, group) in [("dyal", "ary"), ("rahoum", "arq"), ("les", "fra"), ("ɣef", "kab"), ("lli", "shi")] {
            assert!(groups(&lexicon, Script::Latn, word).contains(&group.to_owned()), "{word}");
        }
    }
}
