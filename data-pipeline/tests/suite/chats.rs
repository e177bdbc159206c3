//! Chats become tokens as in transformers, the right ones are trained, and a data set of chats is whole or absent.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::support;
use data_pipeline::chat::config::ExcessLength;
use data_pipeline::chat::{ChatEncoder, REJECTED, Role, TRAINED};
use data_pipeline::dataset::{DataError, Dataset};
use data_pipeline::loader::Loader;
use data_pipeline::order::{MixtureSpec, Order};
use data_pipeline::prepare::{PrepareError, PrepareEvent, Prepared, prepare};
use data_pipeline::tokenizer::Tokenizer;
use data_pipeline::tokenizer::chat::{ChatTemplate, RenderOptions, builtin_template};
use data_pipeline::verify::verify;
use serde_json::{Value, json};

const FAMILIES: [&str; 10] =
    ["llama", "llama_rope3", "llama_bf16", "llama_sharded", "mistral", "mixtral", "qwen2", "qwen3", "gemma2", "gemma3"];

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Ids, marks, ids that end turns, of a chat of a reference bundle.
fn encode(tokenizer: &Tokenizer, template: ChatTemplate, case: &Value) -> (Vec<u32>, Vec<u32>, BTreeSet<u32>) {
    let messages = case["messages"].as_array().unwrap();
    let trained: Vec<bool> = messages.iter().map(|message| message["role"] == "assistant").collect();
    let add_generation_prompt = case["add_generation_prompt"].as_bool().unwrap();
    let rendered =
        template.render_trained(messages, &trained, RenderOptions { add_generation_prompt, now: None }).unwrap();
    assert_eq!(rendered.text, case["rendered"].as_str().unwrap());
    let mut ends = BTreeSet::new();
    let encoder = ChatEncoder::new(tokenizer, template, vec![Role::Assistant]);
    let (ids, marks) = encoder.marked_ids(&rendered, &mut ends).unwrap();
    (ids, marks.into_iter().map(u32::from).collect(), ends)
}

#[test]
fn trained_tokens_are_those_of_transformers_for_every_family() {
    let Some(root) = support::shared("fixtures") else { return };
    let mut seen = 0;
    for family in FAMILIES {
        let bundle = root.join(family);
        let json = std::fs::read(bundle.join("expected/tokenizer_cases.json")).unwrap();
        let cases: Value = serde_json::from_slice(&json).unwrap();
        let tokenizer = Tokenizer::open(&bundle.join("hf")).unwrap();
        let special = ChatTemplate::open(&bundle.join("hf")).unwrap().unwrap().special_tokens().clone();
        let open = |key: &str| ChatTemplate::new(cases[key].as_str().unwrap(), special.clone()).unwrap();
        for case in cases["chat"].as_array().unwrap().iter().filter(|case| case["ids"].is_array()) {
            let expected = ids(&case["assistant_mask"]);
            let (found, marks, ends) = encode(&tokenizer, open("chat_template_with_generation"), case);
            assert_eq!((&found, &marks), (&ids(&case["ids"]), &expected), "{family}");
            // Without marks the turn ends with its special token: Gemma's template marks the line end after it too.
            let (found, inferred, inferred_ends) = encode(&tokenizer, open("chat_template"), case);
            assert_eq!(found, ids(&case["ids"]), "{family}");
            let line_end = tokenizer.encode("\n", false).unwrap();
            for (at, (&inferred, &expected)) in inferred.iter().zip(&expected).enumerate() {
                let after_end = line_end.contains(&found[at]) && at > 0 && ends.contains(&found[at - 1]);
                assert!(inferred == expected || (after_end && expected == 1), "{family}: token {at} of {case}");
            }
            assert_eq!(ends, inferred_ends, "{family}");
            seen += usize::from(expected.contains(&1));
        }
    }
    assert!(seen >= 20, "{seen} chats with an answer");
}

fn record(question: &str, answer: &str) -> Value {
    json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
           "lang": "ary_Latn", "licence": "CC0-1.0"})
}

fn write_lines(path: &Path, records: &[Value]) {
    let lines: Vec<String> = records.iter().map(Value::to_string).collect();
    std::fs::write(path, lines.join("\n")).unwrap();
}

fn config(dir: &Path, kind: &str) -> Value {
    support::tokenizer(&dir.join("tokenizer"));
    json!({
        "output_dir": dir.join("out"),
        "sources": [{"path": dir.join("chats.jsonl"), "type": kind}],
        "allow_licences": ["CC0-1.0"],
        "validation": {"fraction": 0.1, "min_documents": 2},
        "tokenizer": {"path": dir.join("tokenizer")},
        "chat": {"chat_template": "chatml"},
    })
}

fn run(config: &Value) -> Result<Prepared, PrepareError> {
    prepare(&serde_json::from_value(config.clone()).unwrap(), &|_: &PrepareEvent| {}, &AtomicBool::new(false))
}

fn chats(count: usize) -> Vec<Value> {
    (0..count)
        .map(|i| record(&support::text("ary_Latn", i), &format!("labas {}", support::text("ary_Latn", i + 3))))
        .collect()
}

fn prepared(dir: &Path, kind: &str, records: &[Value]) -> (Dataset, Tokenizer) {
    write_lines(&dir.join("chats.jsonl"), records);
    run(&config(dir, kind)).unwrap();
    (Dataset::open(&dir.join("out")).unwrap(), Tokenizer::open(&dir.join("tokenizer")).unwrap())
}

fn loader(dataset: Dataset, seq_len: usize) -> Loader {
    let dataset = Arc::new(dataset);
    let order = Order::new(&dataset.streams(seq_len), &MixtureSpec::default(), 100, 1).unwrap();
    Loader::new(dataset, order, seq_len)
}

#[test]
fn rows_hold_whole_chats_and_only_answers_are_targets() {
    let dir = tempfile::tempdir().unwrap();
    let (dataset, tokenizer) = prepared(dir.path(), "chat", &chats(60));
    let record = dataset.manifest().chat.clone().unwrap();
    let end = tokenizer.id_of("<|im_end|>").unwrap();
    assert_eq!(record.end_of_turn_ids, [end]);
    verify(&dir.path().join("out"), &|_| {}, &AtomicBool::new(false)).unwrap();
    let (seq_len, bos) = (160, tokenizer.bos().unwrap());
    let held_out: u64 = dataset.validation().iter().map(|c| c.num_documents()).sum();
    let counts = dataset.packing(seq_len, ExcessLength::Raise).unwrap().unwrap();
    assert_eq!((counts.samples, counts.dropped), (60, 0));
    let loader = loader(dataset, seq_len);
    let rows = loader.order().shares()[0].stream.rows;
    let (mut samples, mut trained) = (BTreeSet::new(), 0);
    for row in 0..rows {
        let batch = loader.rows(row..row + 1).unwrap();
        assert_eq!(batch, loader.rows(row..row + 1).unwrap());
        samples.extend(batch.samples[0].iter().copied());
        trained += batch.num_targets();
        for (at, &target) in batch.targets.iter().enumerate() {
            let (first, last) = (at == 0, at + 1 == seq_len);
            let begins = first || batch.segments[at] != batch.segments[at - 1];
            assert_eq!(begins, batch.positions[at] == 0);
            let filled = batch.segments[at] as usize >= batch.samples[0].len();
            assert!(!begins || filled || batch.tokens[at] == bos, "a chat was cut");
            if target >= 0 {
                assert!(!last && batch.tokens[at + 1] == target as u32 && !filled);
                assert_eq!(batch.segments[at], batch.segments[at + 1]);
            }
        }
        let ends = batch.targets.iter().filter(|&&target| target == end as i32).count();
        assert_eq!(ends, batch.samples[0].len(), "every answer ends its turn");
    }
    assert_eq!(samples.len() as u64, 60 - held_out);
    assert!(held_out >= 2 && trained as u64 <= record.trained_tokens);
    let refused = Dataset::open(&dir.path().join("out")).unwrap().packing(20, ExcessLength::Raise).unwrap_err();
    assert!(refused.to_string().contains("longer than sequence_len 20"), "{refused}");
    for (excess, kept) in [(ExcessLength::Drop, false), (ExcessLength::Truncate, true)] {
        let dataset = Dataset::open_with(&dir.path().join("out"), excess).unwrap();
        let counts = dataset.packing(40, excess).unwrap().unwrap();
        assert_eq!((counts.truncated > 0, counts.samples + counts.dropped), (kept, 60), "{counts:?}");
    }
}

#[test]
fn preferences_are_two_documents_of_one_sample() {
    let dir = tempfile::tempdir().unwrap();
    let pairs: Vec<Value> = (0..30)
        .map(|i| {
            let text = support::text("ary_Latn", i);
            json!({"prompt": text, "chosen": format!("mzyan {text}"), "rejected": "bzzaf", "licence": "CC0-1.0"})
        })
        .collect();
    let (dataset, _) = prepared(dir.path(), "preference", &pairs);
    assert_eq!(dataset.train()[0].lang(), "und_Zzzz");
    let marks = dataset.train()[0].marks(0, usize::MAX);
    assert!(marks.contains(&TRAINED) && marks.contains(&(TRAINED | REJECTED)));
    let loader = loader(dataset, 256);
    let batch = loader.rows(0..2).unwrap();
    for (row, samples) in batch.samples.iter().enumerate() {
        let range = row * 256..(row + 1) * 256;
        let trained: BTreeSet<u32> =
            range.clone().filter(|&at| batch.targets[at] >= 0).map(|at| batch.segments[at]).collect();
        assert_eq!(trained, (0..2 * samples.len() as u32).collect());
        assert!(batch.positions[range].iter().filter(|&&position| position == 0).count() >= 2 * samples.len());
    }
}

#[test]
fn the_same_chats_give_the_same_bytes_and_another_template_is_another_data_set() {
    let dir = tempfile::tempdir().unwrap();
    write_lines(&dir.path().join("chats.jsonl"), &chats(20));
    let mut config = config(dir.path(), "chat");
    let first = run(&config).unwrap();
    assert!(!first.already && run(&config).unwrap().already);
    config["output_dir"] = json!(dir.path().join("again"));
    assert_eq!(run(&config).unwrap().id, first.id);
    assert!(!support::contents(&dir.path().join("again"))[&PathBuf::from("manifest.json")].is_empty());
    let template = dir.path().join("own.jinja");
    let source = "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + ': ' + m.content + '<|im_end|>' }}{% endfor %}";
    std::fs::write(&template, source).unwrap();
    config["chat"]["chat_template"] = json!(template);
    let message = run(&config).unwrap_err().to_string();
    assert!(message.contains("holds a dataset with another configuration"), "{message}");
    config["output_dir"] = json!(dir.path().join("other"));
    assert_ne!(run(&config).unwrap().id, first.id);
    let kept = std::fs::read_to_string(dir.path().join("other/tokenizer/chat_template.jinja")).unwrap();
    assert_eq!(kept, source);
}

#[test]
fn bad_records_stop_the_preparation_with_their_place_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chats.jsonl");
    let mut records = chats(3);
    records.push(json!({"id": "x-7", "messages": [{"role": "narrator", "content": "once"}]}));
    write_lines(&path, &records);
    let config = config(dir.path(), "chat");
    let refuse = || run(&config).unwrap_err().to_string();
    let message = refuse();
    assert!(message.contains("chats.jsonl: row 4 (byte ") && message.contains("id `x-7`"), "{message}");
    assert!(message.contains("the role `narrator`"), "{message}");
    assert!(!dir.path().join("out").exists());
    let mut long = record("salam", "labas");
    long["messages"][1]["content"] = json!("a".repeat(17 << 20));
    for (bad, expected) in [
        ("{\"messages\": [".to_owned(), "not one whole JSON object"),
        ("\u{fffd}".to_owned() + &"[".repeat(200_000), "not one whole JSON object"),
        (long.to_string(), "unreadable (record_too_large)"),
        (record("salam", "labas").to_string().replace("ary_Latn", "darija"), "(bad_language)"),
    ] {
        std::fs::write(&path, format!("{}\n{bad}\n", record("a", "b"))).unwrap();
        let message = refuse();
        assert!(message.contains("row 2") && message.contains(expected), "{message}");
    }
}

#[test]
fn hostile_templates_end_in_errors() {
    let dir = tempfile::tempdir().unwrap();
    write_lines(&dir.path().join("chats.jsonl"), &chats(3));
    let mut config = config(dir.path(), "chat");
    let path = dir.path().join("t.jinja");
    config["chat"]["chat_template"] = json!(path);
    let loops = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}";
    let doubling = "{% set ns = namespace(s='xxxxxxxx') %}{% for a in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}";
    let around = |answer: &str| format!("{{% for m in messages %}}<|im_start|>{answer}{{% endfor %}}");
    let cases = [
        (loops.to_owned(), "takes more than ten million steps"),
        ("{{ 'salam' }}".to_owned(), "the template does not show it"),
        (around("{{ m.content }}"), "no special token after a trained message"),
        (around("{{ m.content }}{{ m.content }}<|im_end|>"), "shows it more than once"),
        (around("{{ m.content[::-1] }}<|im_end|>"), "the template does not show it"),
        (around("{{ m.content | length }}<|im_end|>"), "the template does not show it"),
        (around("{% generation %}{% endgeneration %}{{ m.content }}<|im_end|>"), "no token of it is trained"),
        (
            "{{ bos_token }}{{ bos_token }}".to_owned() + &around("{{ m.content }}<|im_end|>"),
            "begins with `<|begin_of_text|>` twice",
        ),
        ("{% generation %}".to_owned(), "the chat template fails in line 1"),
    ];
    for (template, expected) in cases {
        std::fs::write(&path, &template).unwrap();
        let message = run(&config).unwrap_err().to_string();
        assert!(message.contains(expected), "{template}: {message}");
        assert!(!dir.path().join("out").exists());
    }
    std::fs::write(&path, doubling).unwrap();
    let message = run(&config).unwrap_err().to_string();
    assert!(message.contains("builds up variables of more than 16 MiB"), "{message}");
    config["chat"]["chat_template"] = json!("chatlm");
    let message = run(&config).unwrap_err().to_string();
    assert!(message.contains("`chatlm` is neither a file nor a known chat template"), "{message}");
    config["chat"] = json!({});
    let message = run(&config).unwrap_err().to_string();
    assert!(message.contains("chat.chat_template: is missing"), "{message}");
}

#[test]
fn answers_are_found_in_templates_without_marks() {
    let tokens = [("bos_token".to_owned(), "<s>".to_owned()), ("eos_token".to_owned(), "</s>".to_owned())];
    let messages = [
        json!({"role": "user", "content": "a b"}),
        json!({"role": "assistant", "content": "  first a b \n"}),
        json!({"role": "user", "content": "first a b"}),
        json!({"role": "assistant", "content": "<think>x</think>a b"}),
    ];
    let plain = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}</s>{% endfor %}";
    let strips = "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1] | trim }}</s>{% endfor %}";
    let found = |source: &str, messages: &[Value]| {
        let template = ChatTemplate::new(source, tokens.clone().into()).unwrap();
        let rendered =
            template.render_trained(messages, &[false, true, false, true], RenderOptions::default()).unwrap();
        rendered.spans.iter().map(|span| rendered.text[span.clone()].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found(plain, &messages), ["first a b", "<think>x</think>a b"]);
    assert_eq!(found(strips, &messages), ["first a b", "a b"]);
    let marked = builtin_template("chatml").unwrap();
    assert_eq!(found(marked, &messages), ["  first a b \n<|im_end|>", "<think>x</think>a b<|im_end|>"]);
}

#[test]
fn damaged_marks_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let (dataset, _) = prepared(dir.path(), "chat", &chats(20));
    drop(dataset);
    let path = dir.path().join("out/shard-00000.marks");
    let mut marks = std::fs::read(&path).unwrap();
    marks[3] ^= 1;
    std::fs::write(&path, &marks).unwrap();
    let check = || verify(&dir.path().join("out"), &|_| {}, &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(check(), DataError::Digest { .. }), "{}", check());
    std::fs::write(&path, &marks[1..]).unwrap();
    assert!(matches!(Dataset::open(&dir.path().join("out")), Err(DataError::Size { .. })));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(Dataset::open(&dir.path().join("out")), Err(DataError::Missing { .. })));
}
