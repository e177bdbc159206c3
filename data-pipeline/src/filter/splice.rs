//! Owns changing single values of a JSON object in its own bytes, so that every other value stays as it was written;
//! never judges whether a line is JSON.

use std::ops::Range;

/// Where the value at `path` (names joined by dots) lies in `line`, which must be a valid JSON object. Of a name that
/// stands twice the last one counts.
pub(super) fn find(line: &str, path: &str) -> Option<Range<usize>> {
    let mut at = 0..line.len();
    for name in path.split('.') {
        at = member(line, at, name)?;
    }
    Some(at)
}

/// The line with some values replaced and others added at the end of the object. Values are JSON texts.
pub(super) fn splice(line: &str, mut replaced: Vec<(Range<usize>, String)>, added: &[(String, String)]) -> String {
    replaced.sort_by_key(|(range, _)| range.start);
    let extra: usize = replaced.iter().map(|(_, value)| value.len()).sum::<usize>()
        + added.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
    let mut out = String::with_capacity(line.len() + extra);
    let mut done = 0;
    for (range, value) in replaced {
        // A value inside one that is replaced as a whole goes with it.
        if range.start < done {
            continue;
        }
        out.push_str(line.get(done..range.start).unwrap_or_default());
        out.push_str(&value);
        done = range.end;
    }
    out.push_str(line.get(done..).unwrap_or_default());
    if added.is_empty() {
        return out;
    }
    let end = out.rfind('}').unwrap_or(out.len());
    out.truncate(end);
    let kept = out.trim_end().len();
    out.truncate(kept);
    for (name, value) in added {
        if !out.ends_with('{') {
            out.push(',');
        }
        out.push_str(&quoted(name));
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
    out
}

/// A string as JSON.
pub(super) fn quoted(text: &str) -> String {
    // A string always has a JSON form.
    serde_json::to_string(text).unwrap_or_default()
}

/// Range of the value of `name` in the object that `within` covers.
pub(super) fn member(line: &str, within: Range<usize>, name: &str) -> Option<Range<usize>> {
    let bytes = line.as_bytes();
    let mut at = skip_space(bytes, within.start);
    if bytes.get(at) != Some(&b'{') {
        return None;
    }
    at += 1;
    let mut found = None;
    loop {
        at = skip_space(bytes, at);
        if at >= within.end || bytes.get(at) == Some(&b'}') {
            return found;
        }
        let key_end = string_end(bytes, at)?;
        let key = line.get(at..key_end)?;
        at = skip_space(bytes, key_end);
        if bytes.get(at) != Some(&b':') {
            return None;
        }
        let start = skip_space(bytes, at + 1);
        let end = value_end(bytes, start)?;
        if is_name(key, name) {
            found = Some(start..end);
        }
        at = skip_space(bytes, end);
        at += usize::from(bytes.get(at) == Some(&b','));
    }
}

fn is_name(key: &str, name: &str) -> bool {
    let inner = key.get(1..key.len().saturating_sub(1)).unwrap_or_default();
    if inner.contains('\\') {
        return serde_json::from_str::<String>(key).is_ok_and(|key| key == name);
    }
    inner == name
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// The byte after the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        let next = at + memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        match bytes.get(next) {
            Some(b'"') => return Some(next + 1),
            _ => at = next + 2,
        }
    }
}

/// The byte after the value that begins at `at`; depth is counted, not recursed into.
fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string_end(bytes, at),
        b'{' | b'[' => {
            let (mut at, mut depth) = (at, 0_usize);
            loop {
                match bytes.get(at)? {
                    b'"' => {
                        at = string_end(bytes, at)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => {
            let rest = bytes.get(at..)?;
            let length = rest.iter().position(|b| matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n'));
            Some(at + length.unwrap_or(rest.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_found_by_name_and_path() {
        let line = r#" { "a" : 1.50 ,"t\u0065xt": "x\"}{", "m":{"text":"in", "l":[1,{"text":"no"}]}, "text" :"last"} "#;
        let value = |path| find(line, path).map(|range| &line[range]);
        assert_eq!(value("a"), Some("1.50"));
        assert_eq!(value("text"), Some("\"last\""));
        assert_eq!(value("m.text"), Some("\"in\""));
        assert_eq!(value("m.l"), Some(r#"[1,{"text":"no"}]"#));
        assert_eq!(value("a.b"), None);
        assert_eq!(value("no"), None);
        assert_eq!(find("{}", "a"), None);
    }

    #[test]
    fn everything_else_stays_as_it_was_written() {
        let line = r#"{"n":1.50,"text":"a","big":123456789012345678901234567890, "e":"\u00e9" }"#;
        let at = find(line, "text").unwrap();
        let out = splice(line, vec![(at, quoted("ب"))], &[("lid".into(), "0.5".into())]);
        assert_eq!(out, r#"{"n":1.50,"text":"ب","big":123456789012345678901234567890, "e":"\u00e9","lid":0.5}"#);
        assert_eq!(splice("{}", Vec::new(), &[("a".into(), "1".into())]), r#"{"a":1}"#);
        assert_eq!(splice("{ }", Vec::new(), &[("a".into(), "1".into())]), r#"{"a":1}"#);
    }

    proptest! {
        #[test]
        fn a_replaced_value_is_what_a_parser_reads(
            names in prop::collection::btree_set("[a-z\"\\\\é]{1,4}", 1..5), texts in prop::collection::vec("\\PC{0,8}", 5), at in 0..5_usize,
        ) {
            let names: Vec<String> = names.into_iter().collect();
            let mut map = serde_json::Map::new();
            for (name, text) in names.iter().zip(&texts) {
                map.insert(name.clone(), serde_json::json!([text, {"text": text}]));
            }
            let line = serde_json::to_string(&map).unwrap();
            let name = &names[at % names.len()];
            let range = find(&line, name).unwrap();
            let out = splice(&line, vec![(range, quoted("new"))], &[]);
            map.insert(name.clone(), "new".into());
            prop_assert_eq!(out, serde_json::to_string(&map).unwrap());
        }

        #[test]
        fn no_bytes_make_it_panic(line in "[{}\\[\\]\":,\\\\a ]{0,40}") {
            _ = find(&line, "a").map(|range| line.get(range));
        }
    }
}
