//! Tests of chat rendering: templates, limits, refusals.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::json;

use super::*;

fn render(source: &str, messages: &[Json]) -> Result<String, ChatError> {
    let tokens = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
    ChatTemplate::new(source, tokens)?.render(messages, RenderOptions { add_generation_prompt: true, now: None })
}

fn user(content: &str) -> Vec<Json> {
    vec![json!({"role": "user", "content": content})]
}

#[test]
fn globals_filters_and_python_methods_are_there() {
    let cases = [
        ("{{ bos_token }}{{ messages[0]['content'] | trim }}", "<s>wach"),
        ("{{ messages[0].role.upper() }}{{ messages[0].content.strip().split('a')[1] }}", "USERch"),
        ("{% if add_generation_prompt %}>{% endif %}{% if eos_token is defined %}no{% endif %}", ">"),
        ("{% if tools %}no{% endif %}{{ tools is none }}", "True"),
        ("{{ messages | tojson }}", r#"[{"role": "user", "content": " wach "}]"#),
        ("{{ {'a': ['<', 'é', 1]} | tojson }}", r#"{"a": ["<", "é", 1]}"#),
        ("{{ {'a': [1], 'b': []} | tojson(indent=2) }}", "{\n  \"a\": [\n    1\n  ],\n  \"b\": []\n}"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "1"),
        ("  {% if true %}\n  x\n  {% endif %}\ny", "  x\ny"),
        ("{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}fixed{% endif %}", "fixed"),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source, &user(" wach ")).unwrap(), expected, "{source}");
    }
}

#[test]
fn generation_marks_change_nothing_but_follow_white_space_rules() {
    let cases = [
        ("a{% generation %}b{% endgeneration %}c", "abc"),
        ("a  {%- generation -%}  b  {%- endgeneration -%}  c", "abc"),
        ("a\n  {% generation %}\nb\n  {% endgeneration %}\nc", "a\nb\nc"),
        ("{{ 'the generation' }}{% set generation = 1 %}{{ generation }}", "the generation1"),
        ("{% generation", "{% generation"),
    ];
    for (source, expected) in cases {
        match render(source, &[]) {
            Ok(rendered) => assert_eq!(rendered, expected, "{source}"),
            Err(error) => assert!(source.ends_with("generation"), "{source}: {error}"),
        }
    }
}

#[test]
fn a_date_is_shown_when_it_is_given() {
    let now = Moment { year: 2025, month: 3, day: 1, hour: 0, minute: 0, second: 0 };
    let template = ChatTemplate::new("{{ strftime_now('%d %b %Y') }}", BTreeMap::new()).unwrap();
    let options = RenderOptions { now: Some(now), ..RenderOptions::default() };
    assert_eq!(template.render(&[], options).unwrap(), "01 Mar 2025");
}

#[test]
fn refusals_faults_and_bombs_are_told_apart() {
    let message = |source: &str| render(source, &user("x")).unwrap_err().to_string();
    assert_eq!(
        message("{{ raise_exception('Only user roles') }}"),
        "the chat template refuses these messages: Only user roles; change their roles or order"
    );
    assert_eq!(
        message("\n{{ messages[0].missing.deeper }}"),
        "the chat template fails in line 2: undefined value; correct the template or the messages"
    );
    assert!(message("{% if %}").starts_with("the chat template fails in line 1: syntax error"));
    assert!(message("{% include 'etc/passwd' %}").contains("template not found"), "{}", message("{% include 'x' %}"));
    assert_eq!(
        message("{% for a in range(9999) %}{% for b in range(9999) %}{% set c = a %}{% endfor %}{% endfor %}"),
        "the chat template takes more than ten million steps; shorten the chat, or check the template for an endless loop"
    );
    assert_eq!(
        message("{% for a in range(9999) %}{{ 'x' * 99999 }}{% endfor %}"),
        "the chat template writes more than 64 MiB; shorten the chat, or check the template for an endless loop"
    );
    let huge = " ".repeat(MAX_TEMPLATE_BYTES + 1);
    assert_eq!(
        message(&huge),
        "the chat template has 1048577 bytes, more than 1048576; check that it is a chat template"
    );
}

#[test]
fn templates_come_from_their_own_file_or_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    assert!(ChatTemplate::open(folder.path()).unwrap().is_none());
    let config = json!({
        "bos_token": {"content": "<s>"}, "eos_token": null,
        "chat_template": [{"name": "rag", "template": "no"}, {"name": "default", "template": "{{ bos_token }}"}],
    });
    std::fs::write(folder.path().join(CONFIG_FILE), config.to_string()).unwrap();
    let render = || ChatTemplate::open(folder.path()).unwrap().unwrap().render(&[], RenderOptions::default()).unwrap();
    assert_eq!(render(), "<s>");
    std::fs::write(folder.path().join(CHAT_TEMPLATE_FILE), "from the file{{ eos_token }}").unwrap();
    assert_eq!(render(), "from the file");
}
