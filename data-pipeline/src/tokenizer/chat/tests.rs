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

/// Few steps, and more memory than there is: each of these must end, soon and with little memory.
#[test]
fn nothing_grows_beyond_its_bounds() {
    let bombs = [
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% macro f(s, n) %}{% if n %}{{ f(s ~ s, n - 1) }}{% endif %}{% endmacro %}{{ f('x', 60) }}",
        "{% macro f(s, n) %}{% if n %}{{ f(s + s, n - 1) }}{% endif %}{% endmacro %}{{ f(['x'], 60) | length }}",
        "{{ ('x' * 90000) | replace('x', 'y' * 90000) }}",
        "{{ ('x' * 90000).replace('x', 'y' * 90000) }}",
        "{{ range(99999) | join('x' * 90000) }}",
        "{{ ('x' * 90000).join(range(99999)) }}",
        "{{ 'a' | indent(10000000000, true) }}",
        "{{ 'a' | indent(width=10000000000, first=true) }}",
        "{{ '%9999999999d' | format(1) }}",
        "{{ '%*d' | format(9999999999, 1) }}",
        "{{ 'x' * 10000000000 }}",
        "{{ [['x' * 90000] * 90000] }}",
        "{% set a %}{% for i in range(99999) %}{{ 'x' * 90000 }}{% endfor %}{% endset %}",
        "{% filter upper %}{% for i in range(99999) %}{{ 'x' * 90000 }}{% endfor %}{% endfilter %}",
        "{% macro f() %}{% for i in range(99999) %}{{ 'x' * 90000 }}{% endfor %}{% endmacro %}{{ f() | length }}",
        "{% for a in [('x' * 90000).split('')] * 90000 %}{% for b in a %}{{ a }}{% endfor %}{% endfor %}",
    ];
    for bomb in bombs {
        let error = render(bomb, &user("x")).unwrap_err().to_string();
        assert!(error.starts_with("the chat template "), "{bomb}: {error}");
    }
    let plain =
        format!("{{% set a %}}{{% for i in range(99999) %}}{}{{% endfor %}}{{% endset %}}", "y".repeat(1 << 19));
    assert!(render(&plain, &user("x")).unwrap_err().to_string().contains("steps"), "plain text");
    let joined = format!("{{{{ {} }}}}", ["'x'"; 200].join(" ~ "));
    assert!(render(&joined, &user("x")).unwrap_err().to_string().contains("hundred"), "operators");
}

/// What honest templates do with the bounded filters gives what it always gave.
#[test]
fn bounded_filters_and_methods_work_as_before() {
    let cases = [
        ("{{ 'a-b' | replace('-', '+') }}{{ 'a-b'.replace('-', '+') }}", "a+ba+b"),
        ("{{ ['a', 'b'] | join(', ') }}{{ ', '.join(['a', 'b']) }}{{ [1, 2] | join }}", "a, ba, b12"),
        ("{{ messages | join('|', attribute='role') }}", "user"),
        ("{{ 'a\nb' | indent(2, true) }}{{ 'a\nb' | indent(width=1) }}", "  a\n  ba\n b"),
        ("{{ '%s-%03d' | format('a', 7) }}", "a-007"),
        ("{% macro m(a, b='x') %}[{{ a }}{{ b }}]{% endmacro %}{{ m(1) }}{{ m(2, b=3) }}", "[1x][23]"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{{ loop.index }}{% endfor %}", "a11"),
        ("{% for m in messages if m.role == 'user' %}\n{{ m.role }}\n{% else %}none{% endfor %}", "user\n"),
        ("{% with a = 1, b = [2, 3] %}{{ a }}{{ b }}{% endwith %}", "1[2, 3]"),
        ("{% macro m() %}<{{ caller('y') }}>{% endmacro %}{% call(x) m() %}{{ x }}{% endcall %}", "<y>"),
        (
            "{{ 'a' if false }}{{ nothing }}|{{ '{% set a = 1 %}' }}{% raw %}{{ b }}{% endraw %}",
            "|{% set a = 1 %}{{ b }}",
        ),
        ("{%- for m in messages -%}  {{- m.role -}}  {%- endfor -%}  .", "user."),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source, &user("x")).unwrap(), expected, "{source}");
    }
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
