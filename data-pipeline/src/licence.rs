//! Owns the licence gate: reading a licence expression and deciding whether a text may be used; never touches files.

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
        LicenceGate { patterns: allowed.iter().map(|p| canonical(p)).collect(), non_commercial }
    }

    /// Judges an expression: `A OR B` needs one of both, `A AND B` and the informal `A / B`, `A, B` and `A; B` need all.
    pub fn judge(&self, licence: &str) -> Verdict {
        let expression = Expression::parse(licence);
        if !self.non_commercial && expression.holds(&is_non_commercial, Chooser::WorstOfBest) {
            return Verdict::NonCommercial;
        }
        let whole = canonical(licence);
        if self.patterns.iter().any(|p| matches(p, &whole)) || expression.holds(&|id| self.is_listed(id), Chooser::Best)
        {
            Verdict::Allowed
        } else {
            Verdict::NotListed
        }
    }

    fn is_listed(&self, id: &str) -> bool {
        let id = canonical(id);
        self.patterns.iter().any(|p| matches(p, &id))
    }
}

/// Whether a single licence name forbids commercial use: a part `NC`, or words such as `non-commercial`, `research only`.
pub fn is_non_commercial(id: &str) -> bool {
    let lower = id.to_lowercase();
    if lower.split(|c: char| !c.is_alphanumeric()).any(|part| part == "nc" || part == "noncommercial") {
        return true;
    }
    let words: String =
        lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
    ["non commercial", "research only", "research use", "academic use", "educational use only"]
        .iter()
        .any(|phrase| words.contains(phrase))
}

/// Lower case, `+` written out, `WITH` exceptions removed, white space single.
fn canonical(id: &str) -> String {
    let lower = id.trim().to_lowercase();
    let base = lower.split(" with ").next().unwrap_or_default().trim();
    match base.strip_suffix('+') {
        Some(version) => format!("{version}-or-later"),
        None => base.split_whitespace().collect::<Vec<_>>().join(" "),
    }
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
        for free in ["LGPL-LR", "CC-BY-4.0", "Unicode-3.0", "NCSA", "Apache-2.0"] {
            assert!(!is_non_commercial(free), "{free}");
        }
    }
}
