//! Owns the names of Creative Commons licences: addresses, titles and abbreviations as SPDX identifiers; never judges one.

/// Conditions in the order in which identifiers name them.
const CONDITIONS: [&str; 4] = ["by", "nc", "nd", "sa"];
/// Words of titles, in lower case, and the conditions they stand for.
const TITLES: [(&str, &str); 8] = [
    ("attribution", "by"),
    ("noncommercial", "nc"),
    ("noderivatives", "nd"),
    ("noderivative", "nd"),
    ("noderivs", "nd"),
    ("sharealike", "sa"),
    ("derivatives", ""),
    ("commercial", ""),
];

/// `cc-by-nc-4.0` for every name of that licence; `None` for what is no Creative Commons licence beyond doubt.
pub(super) fn identifier(name: &str) -> Option<String> {
    let lower = name.trim().to_lowercase();
    if let Some(at) = lower.find("creativecommons.org/") {
        return of_address(lower.get(at..)?.strip_prefix("creativecommons.org/")?);
    }
    of_title(&lower)
}

/// `licenses/by-nc/4.0/igo/deed.fr`, `publicdomain/zero/1.0/`.
fn of_address(path: &str) -> Option<String> {
    let path = path.split(['?', '#', ' ']).next().unwrap_or_default();
    let mut parts =
        path.split('/').filter(|part| !part.is_empty() && !part.starts_with("deed") && *part != "legalcode");
    let kind = parts.next()?;
    let conditions = parts.next()?;
    let version = parts.next();
    let place = parts.next();
    let (head, conditions) = match (kind, conditions) {
        ("publicdomain", "zero") => ("cc0".to_owned(), ""),
        ("publicdomain", "mark") => ("cc-pdm".to_owned(), ""),
        ("licenses" | "licences", conditions) => ("cc".to_owned(), conditions),
        _ => return None,
    };
    let known = conditions.split('-').all(|condition| condition.is_empty() || CONDITIONS.contains(&condition));
    if !known || version.is_some_and(|version| !is_version(version)) {
        return None;
    }
    let parts = [Some(head.as_str()), Some(conditions).filter(|c| !c.is_empty()), version, place];
    Some(parts.into_iter().flatten().collect::<Vec<_>>().join("-"))
}

/// `cc by-nc 4.0`, `creative commons attribution 4.0 international (cc by 4.0)`.
fn of_title(lower: &str) -> Option<String> {
    let words: Vec<&str> =
        lower.split([' ', '-', '_', '\u{2010}', '\u{2011}', '\u{2013}', '(', ')', ':', ',']).collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let (begins_short, skip) = match *words.as_slice() {
        ["cc0", ..] => return of_zero(words.get(1..)?),
        ["cc", "0" | "zero", ..] => return of_zero(words.get(2..)?),
        ["cc", ..] => (true, 1),
        ["creative", "commons", ..] => (false, 2),
        _ => return None,
    };
    let mut found: Vec<&str> = Vec::new();
    let (mut version, mut places) = (None, Vec::new());
    let mut negated = false;
    for &word in words.get(skip..)? {
        let title = TITLES.iter().find(|(title, _)| *title == word).map(|(_, condition)| *condition);
        match word {
            "cc" | "license" | "licence" | "international" | "unported" | "generic" | "public" | "v" => {}
            "non" | "no" => negated = true,
            "share" | "alike" => found.push("sa"),
            "commercial" if negated => found.push("nc"),
            "derivatives" | "derivs" if negated => found.push("nd"),
            word if CONDITIONS.contains(&word) => found.push(word),
            word if is_version(word.trim_start_matches('v')) => {
                let number = word.trim_start_matches('v');
                if *version.get_or_insert(number) != number {
                    return None;
                }
            }
            word if begins_short && word.len() <= 3 && version.is_some() => places.push(word),
            _ => match title {
                Some(condition) if !condition.is_empty() => found.push(condition),
                // A word that is not of the name may change what it means.
                _ => return None,
            },
        }
    }
    let conditions: Vec<&str> = CONDITIONS.into_iter().filter(|condition| found.contains(condition)).collect();
    if conditions.is_empty() {
        return None;
    }
    // SPDX writes the conditions as by, nc, nd or sa: the order of CONDITIONS.
    let parts = std::iter::once("cc").chain(conditions).chain(version).chain(places);
    Some(parts.collect::<Vec<_>>().join("-"))
}

fn of_zero(rest: &[&str]) -> Option<String> {
    let version = rest.iter().copied().find(|word| is_version(word));
    let known = |word: &&str| {
        is_version(word) || ["universal", "public", "domain", "dedication", "cc0", "license"].contains(word)
    };
    rest.iter().all(known).then(|| format!("cc0-{}", version.unwrap_or("1.0")))
}

fn is_version(word: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.len() <= 2 && part.bytes().all(|b| b.is_ascii_digit());
    word.split_once('.').is_some_and(|(major, minor)| digits(major) && digits(minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_become_identifiers() {
        for (name, id) in [
            ("CC-BY-NC-SA-4.0", "cc-by-nc-sa-4.0"),
            ("CC BY 4.0", "cc-by-4.0"),
            ("CC-BY-2.0-FR", "cc-by-2.0-fr"),
            ("cc by-sa 3.0 IGO", "cc-by-sa-3.0-igo"),
            ("https://creativecommons.org/licenses/by/2.0/fr/", "cc-by-2.0-fr"),
            ("http://creativecommons.org/licenses/by-nc-nd/4.0/legalcode", "cc-by-nc-nd-4.0"),
            ("Creative Commons Attribution-NonCommercial-NoDerivatives 4.0 International", "cc-by-nc-nd-4.0"),
            ("Creative Commons Attribution Share Alike 4.0", "cc-by-sa-4.0"),
            ("Creative Commons Attribution Non Commercial 4.0", "cc-by-nc-4.0"),
            ("CC0", "cc0-1.0"),
            ("CC0-1.0", "cc0-1.0"),
            ("cc zero", "cc0-1.0"),
            ("https://creativecommons.org/publicdomain/mark/1.0/", "cc-pdm-1.0"),
            ("CC-BY", "cc-by"),
        ] {
            assert_eq!(identifier(name).as_deref(), Some(id), "{name}");
        }
        for other in [
            "MIT",
            "CC-BY-4.0 for research",
            "CC BY 4.0, CC BY 3.0",
            "Creative Commons",
            "https://creativecommons.org/about",
            "cc",
            "CC0 but ask first",
        ] {
            assert_eq!(identifier(other), None, "{other}");
        }
    }
}
