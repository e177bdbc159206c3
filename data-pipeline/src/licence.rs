//! Owns the licence gate: reading a licence expression and deciding whether a text may be used; never touches files.
//!
//! Corpora name one licence in many ways: `CC-BY-NC-4.0`, `cc by-nc 4.0`, `Creative Commons Attribution-NonCommercial 4.0
//! International`, `https://creativecommons.org/licenses/by-nc/4.0/deed.fr`. All are read as the SPDX identifier first;
//! restrictions are looked for in the name as written as well.

mod creative_commons;

use unicode_normalization::UnicodeNormalization;

/// What the gate says of one licence expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every part that binds is on the list.
    Allowed,
    /// Not on the list: the document is dropped.
    NotListed,
    /// Forbids commercial use while the configuration does not accept that: the run is refused.
    NonCommercial,
}

/// The licences a configuration allows.
#[derive(Debug, Clone)]
pub struct LicenceGate {
    patterns: Vec<String>,
    non_commercial: bool,
}

impl LicenceGate {
    /// `allowed` holds SPDX identifiers, whole expressions as a corpus writes them, or prefixes that end in `*`.
    pub fn new(allowed: &[String], non_commercial: bool) -> LicenceGate {
        LicenceGate { patterns: allowed.iter().map(|p| canonical_pattern(p)).collect(), non_commercial }
    }

    /// Judges an expression: `A OR B` needs one of both, `A AND B` and the informal `A / B`, `A, B` and `A; B` need all.
    ///
    /// A licence that forbids derivatives passes only where the list names it so, or is `*`: `CC-BY-*` does not cover
    /// `CC-BY-ND-4.0`.
    pub fn judge(&self, licence: &str) -> Verdict {
        let expression = Expression::parse(licence);
        if !self.non_commercial && self.restricts(&expression, licence) {
            return Verdict::NonCommercial;
        }
        let whole = canonical(licence);
        if self.covers(&whole) || expression.holds(&|id| self.covers(&canonical(id)), Chooser::Best) {
            Verdict::Allowed
        } else {
            Verdict::NotListed
        }
    }

    /// Whether every way of using a text under this licence is non-commercial.
    fn restricts(&self, expression: &Expression, licence: &str) -> bool {
        if !is_non_commercial(licence) {
            return false;
        }
        // In `research or personal use only` the `or` joins no licences.
        let frees = |id: &str| {
            let id = canonical(id);
            !is_non_commercial(&id) && (is_known(&id) || self.patterns.iter().any(|p| p != "*" && matches(p, &id)))
        };
        expression.holds(&|id| !frees(id), Chooser::WorstOfBest)
            || expression.holds(&is_non_commercial, Chooser::WorstOfBest)
    }

    fn covers(&self, id: &str) -> bool {
        let no_derivatives = forbids_derivatives(id);
        let names_it = |pattern: &str| pattern == "*" || !no_derivatives || forbids_derivatives(pattern);
        self.patterns.iter().any(|pattern| names_it(pattern) && matches(pattern, id))
    }
}

/// Whether `named`, a licence or a prefix that ends in `*`, is `licence` or one of the licences in that expression.
pub fn names(licence: &str, named: &str) -> bool {
    let pattern = canonical_pattern(named);
    let is_it = |id: &str| matches(&pattern, &canonical(id));
    is_it(licence) || Expression::parse(licence).any_id(&is_it)
}

/// Words that restrict use to what is not commerce, joined by single spaces, in lower case.
const NON_COMMERCIAL: [&str; 24] = [
    "non commercial",
    "noncommercial",
    "non commerciale",
    "pas d utilisation commerciale",
    "no comercial",
    "nocomercial",
    "nicht kommerziell",
    "غير تجاري",
    "غير التجاري",
    "غير تجارية",
    "no commercial use",
    "not for commercial",
    "commercial use prohibited",
    "commercial use is prohibited",
    "commercial use not",
    "commons clause",
    "research only",
    "research use",
    "research purposes",
    "academic use",
    "academic purposes",
    "academic only",
    "educational use only",
    "personal use only",
];

/// Whether a single licence name forbids commercial use: a part `NC`, or words such as `non-commercial`, `research only`.
pub fn is_non_commercial(id: &str) -> bool {
    let words = words(id);
    let in_parts = words.iter().any(|word| matches!(word.as_str(), "nc" | "noncommercial") || glued(word, "nc"));
    in_parts || {
        let joined = words.join(" ");
        NON_COMMERCIAL.iter().any(|phrase| joined.contains(phrase))
    }
}

/// Whether a single licence name forbids derived works: a part `ND`, or words such as `NoDerivatives`.
pub fn forbids_derivatives(id: &str) -> bool {
    let words = words(id);
    let in_parts = words.iter().any(|word| {
        matches!(word.as_str(), "nd" | "noderivs" | "noderivatives" | "noderivative" | "noderivs30")
            || glued(word, "nd")
    });
    in_parts || {
        let joined = words.join(" ");
        ["no deriv", "pas de modification", "sin obra derivada", "sin derivad", "keine bearbeitung", "منع الاشتقاق"]
            .iter()
            .any(|phrase| joined.contains(phrase))
    }
}

/// Letters and digits in lower case, in compatibility form, cut at everything else.
fn words(id: &str) -> Vec<String> {
    let folded: String = id.nfkc().flat_map(char::to_lowercase).collect();
    folded.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Whether a word such as `ccbyncsa40` is made of the parts of a Creative Commons licence and has `part` among them.
fn glued(word: &str, part: &str) -> bool {
    let mut rest = word.trim_end_matches(|c: char| c.is_ascii_digit());
    let had_prefix = rest.starts_with("cc") || rest.starts_with("by");
    rest = rest.strip_prefix("cc").unwrap_or(rest);
    let mut found = false;
    while !rest.is_empty() {
        let Some(next) = ["by", "nc", "nd", "sa"].into_iter().find(|known| rest.starts_with(known)) else {
            return false;
        };
        found |= next == part;
        rest = rest.get(2..).unwrap_or_default();
    }
    found && had_prefix
}

/// Beginnings of identifiers that are licences without doubt.
const FAMILIES: [&str; 22] = [
    "cc-",
    "cc0",
    "mit",
    "apache",
    "bsd",
    "isc",
    "gpl",
    "lgpl",
    "agpl",
    "mpl",
    "epl",
    "eupl",
    "odc",
    "odbl",
    "pddl",
    "unlicense",
    "zlib",
    "unicode",
    "artistic",
    "cdla",
    "0bsd",
    "ofl",
];

fn is_known(id: &str) -> bool {
    !id.contains(' ') && FAMILIES.iter().any(|family| id.starts_with(family))
}

/// The spelling that licences are compared in: Creative Commons names and addresses as SPDX identifiers, else lower case,
/// `+` written out, `WITH` exceptions of SPDX removed, white space single.
fn canonical(id: &str) -> String {
    if let Some(id) = creative_commons::identifier(id) {
        return id;
    }
    let folded: String = id.nfkc().flat_map(char::to_lowercase).collect();
    let lower = folded.split_whitespace().collect::<Vec<_>>().join(" ");
    let base = match lower.split_once(" with ") {
        // Only these widen a licence; `MIT with restrictions` does not.
        Some((base, exception)) if is_exception(exception) => base,
        _ => &lower,
    };
    match base.strip_suffix('+') {
        Some(version) => format!("{version}-or-later"),
        None => base.to_owned(),
    }
}

/// A prefix stays one: `CC BY*` is `cc-by*`.
fn canonical_pattern(pattern: &str) -> String {
    match pattern.trim().strip_suffix('*') {
        None => canonical(pattern),
        Some(prefix) => {
            let lower = prefix.trim_start().to_lowercase();
            match lower.strip_prefix("cc") {
                Some(rest) if rest.starts_with([' ', '-', '_']) => format!("cc{}*", rest.replace([' ', '_'], "-")),
                _ => format!("{lower}*"),
            }
        }
    }
}

fn is_exception(name: &str) -> bool {
    !name.contains(' ') && (name.contains("exception") || name.ends_with("syscall-note"))
}

fn matches(pattern: &str, id: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => id.starts_with(prefix),
        None => pattern == id,
    }
}

/// How an alternative is decided.
#[derive(Clone, Copy)]
enum Chooser {
    /// `OR` holds when one side does, `AND` when all do.
    Best,
    /// A restriction: `OR` carries it only when every alternative does, `AND` when any part does.
    WorstOfBest,
}

#[derive(Debug, PartialEq, Eq)]
enum Expression {
    Id(String),
    All(Vec<Expression>),
    Any(Vec<Expression>),
}

/// Parentheses deeper than this are read as part of a name.
const MAX_NESTING: usize = 16;

impl Expression {
    fn parse(text: &str) -> Expression {
        let tokens = tokens(text);
        let mut rest = tokens.as_slice();
        let parsed = Expression::any(&mut rest, 0);
        // Left-over tokens mean unbalanced parentheses; the name as written is the honest reading.
        if rest.is_empty() { parsed } else { Expression::Id(text.trim().to_owned()) }
    }

    fn any(rest: &mut &[Token], depth: usize) -> Expression {
        let mut parts = vec![Expression::all(rest, depth)];
        while let [Token::Or, tail @ ..] = rest {
            *rest = tail;
            parts.push(Expression::all(rest, depth));
        }
        one_or(parts, Expression::Any)
    }

    fn all(rest: &mut &[Token], depth: usize) -> Expression {
        let mut parts = vec![Expression::atom(rest, depth)];
        while let [Token::And, tail @ ..] = rest {
            *rest = tail;
            parts.push(Expression::atom(rest, depth));
        }
        one_or(parts, Expression::All)
    }

    fn atom(rest: &mut &[Token], depth: usize) -> Expression {
        match rest {
            [Token::Open, tail @ ..] if depth < MAX_NESTING => {
                *rest = tail;
                let inner = Expression::any(rest, depth + 1);
                if let [Token::Close, tail @ ..] = rest {
                    *rest = tail;
                }
                inner
            }
            [Token::Name(name), tail @ ..] => {
                let id = Expression::Id(name.clone());
                *rest = tail;
                id
            }
            _ => Expression::Id(String::new()),
        }
    }

    fn any_id(&self, test: &dyn Fn(&str) -> bool) -> bool {
        match self {
            Expression::Id(id) => test(id),
            Expression::All(parts) | Expression::Any(parts) => parts.iter().any(|part| part.any_id(test)),
        }
    }

    fn holds(&self, test: &dyn Fn(&str) -> bool, chooser: Chooser) -> bool {
        match (self, chooser) {
            (Expression::Id(id), _) => test(id),
            (Expression::All(parts), Chooser::Best) | (Expression::Any(parts), Chooser::WorstOfBest) => {
                parts.iter().all(|p| p.holds(test, chooser))
            }
            (Expression::Any(parts), Chooser::Best) | (Expression::All(parts), Chooser::WorstOfBest) => {
                parts.iter().any(|p| p.holds(test, chooser))
            }
        }
    }
}

fn one_or(mut parts: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.len() {
        1 => parts.swap_remove(0),
        _ => many(parts),
    }
}

#[derive(Debug)]
enum Token {
    Name(String),
    And,
    Or,
    Open,
    Close,
}

/// Words between operators join into one name, so that `GPL-2.0-only WITH Classpath-exception-2.0` stays whole.
fn tokens(text: &str) -> Vec<Token> {
    let mut spaced = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if matches!(c, '(' | ')' | ',' | ';') {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    let mut tokens: Vec<Token> = Vec::new();
    for word in spaced.split_whitespace() {
        let token = match word {
            "(" => Token::Open,
            ")" => Token::Close,
            "/" | "," | ";" | "&" => Token::And,
            word if word.eq_ignore_ascii_case("and") => Token::And,
            word if word.eq_ignore_ascii_case("or") => Token::Or,
            word => {
                if let Some(Token::Name(name)) = tokens.last_mut() {
                    name.push(' ');
                    name.push_str(word);
                    continue;
                }
                Token::Name(word.to_owned())
            }
        };
        tokens.push(token);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(allowed: &[&str], non_commercial: bool, licence: &str) -> Verdict {
        let allowed: Vec<String> = allowed.iter().map(|s| (*s).to_owned()).collect();
        LicenceGate::new(&allowed, non_commercial).judge(licence)
    }

    #[test]
    fn single_licences() {
        assert_eq!(judge(&["MIT"], false, "mit"), Verdict::Allowed);
        assert_eq!(judge(&["MIT"], false, "MIT-0"), Verdict::NotListed);
        assert_eq!(judge(&["GPL-2.0-or-later"], false, "GPL-2.0+"), Verdict::Allowed);
        assert_eq!(judge(&["CC-BY-*"], false, "CC-BY-SA-4.0"), Verdict::Allowed);
        assert_eq!(judge(&["*"], false, "LGPL-LR"), Verdict::Allowed);
        assert_eq!(judge(&["GPL-2.0-only"], false, "GPL-2.0-only WITH Classpath-exception-2.0"), Verdict::Allowed);
        assert_eq!(judge(&[], false, "MIT"), Verdict::NotListed);
    }

    #[test]
    fn the_informal_slash_binds_both_sides() {
        let kabyle = "Apache-2.0 / CC-BY-2.0-FR";
        assert_eq!(judge(&["Apache-2.0"], false, kabyle), Verdict::NotListed);
        assert_eq!(judge(&["Apache-2.0", "CC-BY-2.0-FR"], false, kabyle), Verdict::Allowed);
        assert_eq!(judge(&["Apache-2.0 / CC-BY-2.0-FR"], false, kabyle), Verdict::Allowed);
        assert_eq!(judge(&["Apache-2.0", "CC-BY-*"], false, "Apache-2.0, CC-BY-4.0"), Verdict::Allowed);
    }

    #[test]
    fn alternatives_and_parentheses() {
        assert_eq!(judge(&["MIT"], false, "Apache-2.0 OR MIT"), Verdict::Allowed);
        assert_eq!(judge(&["MIT"], false, "(Apache-2.0 OR MIT) AND CC-BY-4.0"), Verdict::NotListed);
        assert_eq!(judge(&["MIT", "CC-BY-4.0"], false, "(Apache-2.0 or MIT) and CC-BY-4.0"), Verdict::Allowed);
        assert_eq!(judge(&["MIT"], false, "MIT)"), Verdict::NotListed);
        assert_eq!(judge(&["MIT"], false, &format!("{}MIT", "(".repeat(10_000))), Verdict::NotListed);
    }

    #[test]
    fn non_commercial_is_refused_unless_accepted_and_then_still_needs_the_list() {
        for nc in [
            "CC-BY-NC-4.0",
            "cc by nc sa 4.0",
            "CC_BY_NC",
            "Custom (non-commercial)",
            "Research only",
            "MIT / CC-BY-NC-4.0",
        ] {
            assert_eq!(judge(&["*"], false, nc), Verdict::NonCommercial, "{nc}");
            assert_eq!(judge(&["*"], true, nc), Verdict::Allowed, "{nc}");
            assert_eq!(judge(&["MIT"], true, nc), Verdict::NotListed, "{nc}");
        }
        assert_eq!(judge(&["MIT"], false, "MIT OR CC-BY-NC-4.0"), Verdict::Allowed);
        assert_eq!(judge(&["*"], false, "research or personal use only"), Verdict::NonCommercial);
        assert_eq!(judge(&["*"], false, "academic or non-commercial use"), Verdict::NonCommercial);
        assert_eq!(judge(&["*"], false, "CC-BY-NC-4.0 OR CC-BY-NC-SA-4.0"), Verdict::NonCommercial);
        assert_eq!(judge(&["Foo-1"], false, "Foo-1 OR CC-BY-NC-4.0"), Verdict::Allowed);
        for free in ["LGPL-LR", "CC-BY-4.0", "Unicode-3.0", "NCSA", "Apache-2.0", "Sync", "commercial use allowed"] {
            assert!(!is_non_commercial(free), "{free}");
        }
    }

    #[test]
    fn a_licence_is_named_alone_in_an_expression_or_by_a_prefix() {
        assert!(names("CC BY-NC 4.0", "cc-by-nc-4.0") && names("Apache-2.0 / CC-BY-2.0-FR", "CC-BY-2.0-FR"));
        assert!(names("CC-BY-SA-4.0", "CC-BY-*") && names("MIT OR (GPL-2.0-only AND X)", "x"));
        assert!(!names("CC-BY-4.0", "CC-BY") && !names("MIT", "MIT-0"));
    }

    #[test]
    fn restrictions_are_found_in_every_spelling() {
        for nc in [
            "CC BY-NC 4.0",
            "cc-by-nc-sa-4.0",
            "https://creativecommons.org/licenses/by-nc/4.0/",
            "http://creativecommons.org/licenses/by-nc-nd/3.0/igo/deed.ar",
            "Creative Commons Attribution-NonCommercial 4.0 International",
            "Creative Commons : Attribution - Pas d'Utilisation Commerciale",
            "Attribution NonCommercial ShareAlike",
            "ccbyncsa4.0",
            "CC-BYNC",
            "CC BY\u{2013}NC",
            "ＣＣ－ＢＹ－ＮＣ",
            "NON COMMERCIAL",
            "non\u{2011}commercial",
            "noncommercial",
            "PolyForm-Noncommercial-1.0.0",
            "Apache-2.0 with Commons Clause",
            "for academic purposes",
            "رخصة غير تجارية",
        ] {
            assert_eq!(judge(&["*"], false, nc), Verdict::NonCommercial, "{nc}");
        }
        for nd in [
            "CC-BY-ND-4.0",
            "cc by nd 4.0",
            "https://creativecommons.org/licenses/by-nd/4.0",
            "CC BY NoDerivatives 4.0",
        ] {
            assert_eq!(judge(&["CC-BY-*"], true, nd), Verdict::NotListed, "{nd}");
            assert_eq!(judge(&["CC-BY-ND-*"], true, nd), Verdict::Allowed, "{nd}");
            assert_eq!(judge(&["*"], true, nd), Verdict::Allowed, "{nd}");
        }
        assert_eq!(judge(&["CC-BY-*"], true, "CC-BY-NC-ND-4.0"), Verdict::NotListed);
    }

    #[test]
    fn one_licence_passes_in_every_spelling() {
        for by in [
            "cc-by-4.0",
            "CC BY 4.0",
            "CC_BY_4.0",
            "CC-BY 4.0",
            "https://creativecommons.org/licenses/by/4.0/",
            "creativecommons.org/licenses/by/4.0/deed.fr",
            "Creative Commons Attribution 4.0 International",
            "Creative Commons Attribution 4.0 International (CC BY 4.0)",
        ] {
            assert_eq!(judge(&["CC-BY-4.0"], false, by), Verdict::Allowed, "{by}");
            assert_eq!(judge(&["CC BY 4.0"], false, by), Verdict::Allowed, "{by}");
            assert_eq!(judge(&["CC-BY-*"], false, by), Verdict::Allowed, "{by}");
            assert_eq!(judge(&["CC-BY-3.0", "CC-BY-SA-*"], false, by), Verdict::NotListed, "{by}");
        }
        assert_eq!(judge(&["CC0-1.0"], false, "https://creativecommons.org/publicdomain/zero/1.0/"), Verdict::Allowed);
        assert_eq!(judge(&["CC0-1.0"], false, "CC0 1.0 Universal"), Verdict::Allowed);
        assert_eq!(judge(&["MIT"], false, "MIT with restrictions"), Verdict::NotListed);
    }
}
