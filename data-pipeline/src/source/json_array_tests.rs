//! Tests of cutting lists of JSON objects into records.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::super::discover::Compression;
use super::super::jsonl::lines;
use super::super::stream::ByteStream;
use super::*;
use crate::config::Limits;

/// Number, byte position, and line or reason.
type Found = Vec<(u64, u64, String)>;

/// Lines and rejected rows.
fn cut(text: &str, max_record: usize) -> (Found, Found) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.json");
    std::fs::write(&path, text).unwrap();
    let stream = ByteStream::open(&path, Compression::None, &Limits::default()).unwrap();
    let mut cutter = ElementCutter::new(Window::new(stream), max_record);
    let (mut rows, mut rejected) = (Vec::new(), Vec::new());
    while let Some(chunk) = cutter.next_chunk() {
        let Chunk::Lines { bytes, first, rejects } = chunk else { panic!("no lines") };
        for (place, line) in lines(&bytes, first) {
            let at = place.byte.unwrap() as usize;
            let line = String::from_utf8(line.to_vec()).unwrap().trim_end().to_owned();
            assert!(text[at..].replace('\n', " ").starts_with(&line), "{line} is not at {at}");
            rows.push((place.row, place.byte.unwrap(), line));
        }
        let place = |reject: Reject| (reject.place.row, reject.place.byte.unwrap(), reject.reason.to_string());
        rejected.extend(rejects.into_iter().map(place));
    }
    (rows, rejected)
}

fn texts(text: &str) -> Vec<String> {
    let (rows, rejected) = cut(text, 1 << 20);
    assert!(rejected.is_empty(), "{rejected:?}");
    rows.into_iter().map(|(_, _, line)| line).collect()
}

#[test]
fn lists_and_sequences_of_any_layout_give_the_same_elements() {
    let expected = ["{\"a\":1}", "{\"b\":\"x,]}[{\\\"\"}", "{\"c\":[{},[1]]}"];
    let joined = |before: &str, between: &str, after: &str| format!("{before}{}{after}", expected.join(between));
    for text in [
        joined("[", ",", "]"),
        joined("[\n  ", ",\n  ", "\n]\n"),
        joined("", "\n", "\n"),
        joined("", "", ""),
        joined(" \n[ ", " , ", " ] \n"),
        format!("[{}]\n[{},{}]", expected[0], expected[1], expected[2]),
    ] {
        assert_eq!(texts(&text), expected, "{text}");
    }
    for nothing in ["", "[]", " \n", "[\n]\n"] {
        assert!(texts(nothing).is_empty());
    }
    assert_eq!(texts("[{\n \"a\":\n 1\n}]"), ["{  \"a\":  1 }"]);
    assert_eq!(texts("[1, \"a\", null, [2]]"), ["1", "\"a\"", "null", "[2]"]);
}

#[test]
fn a_broken_element_costs_itself() {
    let text =
        "[\n {\"a\": 1},\n {\"b\": \"cut,\n {\"c\": 3},\n {\"d\": {\n {\"e\": 5},\n {\"f\": ]},\n {\"g\": 7}\n]\n";
    let (rows, rejected) = cut(text, 1 << 20);
    let kept: Vec<&str> = rows.iter().map(|(_, _, line)| line.as_str()).collect();
    assert_eq!(kept, ["{\"a\": 1}", "{\"c\": 3}", "{\"e\": 5}", "{\"g\": 7}"]);
    let places: Vec<usize> = ["{\"b", "{\"d", "{\"f"].iter().map(|start| text.find(start).unwrap()).collect();
    assert_eq!(rejected.iter().map(|(_, byte, _)| *byte as usize).collect::<Vec<_>>(), places);
    assert!(rejected.iter().all(|(_, _, reason)| reason == "invalid_json"));
    assert_eq!(rows.iter().map(|(row, _, _)| *row).collect::<Vec<_>>(), [1, 3, 5, 7]);
}

#[test]
fn a_list_that_does_not_end_is_told() {
    for text in ["[{\"a\":1},", "[{\"a\":1}", "[{\"a\":1},{\"b\":\"x", "[{\"a\":1},{\"b\":"] {
        let (rows, rejected) = cut(text, 1 << 20);
        assert_eq!((rows.len(), rejected.len()), (1, 1), "{text}: {rejected:?}");
    }
}

#[test]
fn long_elements_are_passed_over() {
    let long = format!("{{\"a\":\"{}\\\"\"}}", "x".repeat(2 << 20));
    let text = format!("[{{\"a\":1}},{long},{{\"b\":2}}, {long}]");
    let (rows, rejected) = cut(&text, 1000);
    assert_eq!(
        rows.iter().map(|(row, _, line)| (*row, line.as_str())).collect::<Vec<_>>(),
        [(1, "{\"a\":1}"), (3, "{\"b\":2}")]
    );
    assert_eq!(rejected.iter().map(|(row, _, _)| *row).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(cut(&text, 4 << 20).0.len(), 4);
}

#[test]
fn any_nesting_and_any_garbage_ends() {
    let deep = format!("[{}1{}]", "{\"a\":[".repeat(50_000), "]}".repeat(50_000));
    assert_eq!(texts(&deep).len(), 1);
    for text in ["]]]]", "}}}}", "[[[[", "{{{{", "\"\"\"", "[,,,]", "{]}[", "\\\\\"", "[\"a\nb\"]", "{\"a\" \"b\"}"] {
        cut(text, 1 << 20);
    }
}
