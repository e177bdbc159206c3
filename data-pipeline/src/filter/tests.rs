//! Tests of one stage over rows: fields, order, output, bad input.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;

static NEVER: AtomicBool = AtomicBool::new(false);

fn watch() -> Watch<'static> {
    Watch { observe: &|_| {}, stop: &NEVER }
}

/// Upper case, a mark on every row, rows with "drop" go.
struct Loud;

impl Stage for Loud {
    fn apply(&self, row: &Row<'_>, counts: &mut Counts) -> Outcome {
        if row.text.contains("drop") {
            return Outcome::Drop("asked".into());
        }
        counts.add(row.lang.unwrap_or("none"), 1);
        let set = vec![("place".to_owned(), format!("{}:{}", row.file, row.number).into()), ("n".to_owned(), 1.into())];
        Outcome::Keep(Edits { text: Some(row.text.to_uppercase()), set })
    }
}

fn filter(sources: &[SourceConfig], stage: &dyn Stage) -> Result<(String, Summary), FilterError> {
    let mut out = Vec::new();
    let inputs = Inputs::open(sources)?;
    let summary = run(&inputs, &Options::default(), stage, (&mut out, Path::new("out")), watch())?;
    Ok((String::from_utf8(out).unwrap(), summary))
}

fn at(path: &Path) -> SourceConfig {
    SourceConfig::at(path.to_str().unwrap())
}

#[test]
fn fields_pass_through_and_every_row_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    let rows = "{\"n\": 1.50,\"text\":\"un\",\"lang\":\"fra\"}\n\n{\"text\":\"drop\"}\n{\"text\":3}\n{\"te\n{ \"x\":[1, 2],\"text\":\"deux\"}";
    std::fs::write(&path, rows).unwrap();
    let (out, summary) = filter(&[at(&path)], &Loud).unwrap();
    let expected = "{\"n\": 1,\"text\":\"UN\",\"lang\":\"fra\",\"place\":\"0:1\"}\n{ \"x\":[1, 2],\"text\":\"DEUX\",\"place\":\"0:6\",\"n\":1}\n";
    assert_eq!(out, expected);
    let counts = |pairs: &[(&str, u64)]| Counts(pairs.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect());
    assert_eq!((summary.rows, summary.kept, summary.changed, summary.files), (6, 2, 2, 1));
    assert_eq!(summary.dropped, counts(&[("asked", 1)]));
    assert_eq!(summary.broken, counts(&[("blank_line", 1), ("invalid_json", 1), ("text_not_string", 1)]));
    assert_eq!(summary.counts, counts(&[("fra", 1), ("none", 1)]));
    let (same, _) = filter(&[at(&path)], &Nothing).unwrap();
    assert_eq!(same.lines().next(), rows.lines().next());
}

#[test]
fn tables_and_texts_become_objects_with_all_columns() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.csv"), "year,text,lang\n1999,\"a \"\"b\"\"\",fra\n2000,c,\n").unwrap();
    std::fs::write(dir.path().join("b.txt"), "première\n\nseconde\n").unwrap();
    let (out, _) = filter(&[at(dir.path())], &Nothing).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], r#"{"year":"1999","text":"a \"b\"","lang":"fra"}"#);
    assert_eq!(lines[1], r#"{"year":"2000","text":"c","lang":""}"#);
    assert_eq!(lines[2..], [r#"{"text":"première"}"#, r#"{"text":"seconde"}"#]);
}

#[test]
fn rows_come_in_order_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let line = |i: usize| format!("{{\"text\":\"row {i} {}\"}}\n", "x".repeat(i % 700));
    std::fs::write(dir.path().join("a.jsonl"), (0..20_000).map(line).collect::<String>()).unwrap();
    std::fs::write(dir.path().join("b.jsonl"), (0..50).map(line).collect::<String>()).unwrap();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| filter(&[at(dir.path())], &Loud).unwrap())
    };
    let one = run(1);
    assert_eq!(one.1.rows, 20_050);
    assert!(one.0.lines().last().unwrap().contains("\"1:50\""));
    assert!(run(3) == one);
    let mut numbers = Vec::new();
    let inputs = Inputs::open(&[at(dir.path())]).unwrap();
    let mut each = |number| {
        numbers.push(number);
        Ok(())
    };
    read(&inputs, &Options::default(), &|row, _| (row.file, row.number), &mut each, watch()).unwrap();
    assert!(numbers.is_sorted() && numbers.len() == 20_050);
}

#[test]
fn a_nested_text_is_changed_where_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    std::fs::write(&path, r#"{"doc":{"body":"un","n":1e3},"text":"other"}"#).unwrap();
    let mut source = at(&path);
    source.fields.text = Some("doc.body".into());
    let (out, _) = filter(&[source], &Loud).unwrap();
    assert_eq!(out, "{\"doc\":{\"body\":\"UN\",\"n\":1e3},\"text\":\"other\",\"place\":\"0:1\",\"n\":1}\n");
}

#[test]
fn unusable_inputs_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    std::fs::write(&path, "{\"body\":\"x\"}\n").unwrap();
    let message = filter(&[at(&path)], &Nothing).unwrap_err().to_string();
    assert!(message.contains("missing_text 1"), "{message}");
    std::fs::write(dir.path().join("b.csv"), "body\nx\n").unwrap();
    assert!(matches!(filter(&[at(&dir.path().join("b.csv"))], &Nothing), Err(FilterError::Source(_))));
    let stopped = AtomicBool::new(true);
    let watch = Watch { observe: &|_| {}, stop: &stopped };
    let inputs = Inputs::open(&[at(&path)]).unwrap();
    let result = run(&inputs, &Options::default(), &Nothing, (&mut Vec::new(), Path::new("out")), watch);
    assert!(matches!(result, Err(FilterError::Stopped)));
}
