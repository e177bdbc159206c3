//! Tests of reading records: the forms, the mapping of fields, and everything that is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::json;

use super::*;

fn chat(record: &Json) -> Result<Sample, RecordError> {
    read(record, &FieldNames::default(), RecordKind::Chat)
}

fn read(record: &Json, names: &FieldNames, kind: RecordKind) -> Result<Sample, RecordError> {
    parse(&record.to_string(), names, kind, Normalize::Nfc, &[Role::Assistant])
}

fn said(messages: &[Message]) -> Vec<(Role, &str)> {
    messages.iter().map(|message| (message.role, message.content.as_str())).collect()
}

#[test]
fn the_usual_forms_give_the_same_chat() {
    let expected =
        [(Role::System, "Jaweb b darija."), (Role::User, "Chno hada?\n\nkas"), (Role::Assistant, "Kas d atay.")];
    let records = [
        json!({"messages": [
            {"role": "system", "content": "Jaweb b darija."}, {"role": "user", "content": "Chno hada?\n\nkas"},
            {"role": "assistant", "content": [{"type": "text", "text": "Kas "}, {"type": "text", "text": "d atay."}]},
        ]}),
        json!({"conversations": [
            {"from": "system", "value": "Jaweb b darija."}, {"from": "human", "value": "Chno hada?\r\n\r\nkas"},
            {"from": "gpt", "value": "Kas d atay."},
        ]}),
        json!({"system": "Jaweb b darija.", "instruction": "Chno hada?", "input": "kas", "output": "Kas d atay."}),
    ];
    for record in &records {
        let sample = chat(record).unwrap();
        assert_eq!(said(&sample.messages), expected);
        assert_eq!(Sample::from_text(&sample.to_text()).unwrap(), sample);
    }
    let plain = chat(&json!({"instruction": "Sawwel", "input": "", "output": "Jaweb"})).unwrap();
    assert_eq!(said(&plain.messages), [(Role::User, "Sawwel"), (Role::Assistant, "Jaweb")]);
}

#[test]
fn fields_are_found_under_other_names() {
    let names = FieldNames {
        messages: Some("data.dialog".into()),
        role: Some("who".into()),
        content: Some("says".into()),
        ..FieldNames::default()
    };
    let record = json!({"data": {"dialog": [{"who": "human", "says": "a"}, {"who": "bot", "says": "b"}]}});
    assert_eq!(said(&read(&record, &names, RecordKind::Chat).unwrap().messages).len(), 2);
    assert!(matches!(chat(&record), Err(RecordError::NoFields { .. })));
}

#[test]
fn preferences_are_texts_messages_or_whole_conversations() {
    let user = json!({"role": "user", "content": "q"});
    let answer = |text: &str| json!({"role": "assistant", "content": text});
    let records = [
        json!({"prompt": "q", "chosen": "good", "rejected": "bad"}),
        json!({"prompt": [user], "chosen": [answer("good")], "rejected": [answer("bad")]}),
        json!({"prompt": [user], "chosen": [user, answer("good")], "rejected": [user, answer("bad")]}),
        json!({"chosen": [user, answer("good")], "rejected": [user, answer("bad")]}),
        json!({"prompt": "q", "chosen": [user, answer("good")], "rejected": [user, answer("bad")]}),
    ];
    for record in &records {
        let Sample { messages, chosen, rejected } =
            read(record, &FieldNames::default(), RecordKind::Preference).unwrap();
        assert_eq!(said(&messages), [(Role::User, "q")]);
        assert_eq!((said(&chosen), said(&rejected)), (vec![(Role::Assistant, "good")], vec![(Role::Assistant, "bad")]));
    }
}

#[test]
fn what_is_no_chat_is_refused_with_its_reason() {
    let turn = |role: Json, content: Json| json!({"messages": [{"role": role, "content": content}]});
    let cases = [
        (json!([1]), "is not one whole JSON object"),
        (json!({"text": "salam"}), "has `text`, not `messages`"),
        (json!({"messages": "salam"}), "`messages` is a text, expected a list"),
        (json!({"messages": []}), "has 0 messages"),
        (json!({"messages": [3]}), "`messages[0]` is a number"),
        (turn(json!("narrator"), json!("x")), "message 1 has the role `narrator`"),
        (turn(json!(null), json!("x")), "`messages[0].role` is null"),
        (turn(json!("assistant"), json!(null)), "message 1 says nothing: its content is null"),
        (turn(json!("assistant"), json!(" \n")), "its content is empty"),
        (json!({"messages": [{"role": "assistant"}]}), "its content is absent"),
        (turn(json!("tool"), json!("x")), "message 1 is a tool call"),
        (turn(json!("assistant"), json!([{"type": "image_url"}])), "a part of type `image_url`"),
        (json!({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"id": 1}]}]}), "is a tool call"),
        (turn(json!("user"), json!("only a question")), "no message of a role to train (assistant)"),
        (json!({"instruction": "x", "output": 3}), "`output` is a number, expected a text"),
    ];
    for (record, expected) in cases {
        let message = chat(&record).unwrap_err().to_string();
        assert!(message.contains(expected), "{record}: {message}");
    }
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let names = FieldNames::default();
    let refused = parse(&deep, &names, RecordKind::Chat, Normalize::None, &[Role::Assistant]);
    assert_eq!(refused, Err(RecordError::NotAnObject));
}

#[test]
fn preferences_without_a_preference_are_refused() {
    let cases = [
        (json!({"prompt": "q", "chosen": "a", "rejected": "a"}), "are the same"),
        (json!({"prompt": "q", "chosen": "a"}), "not `chosen` and `rejected`"),
        (json!({"chosen": "a", "rejected": "b"}), "not a `prompt`"),
        (
            json!({"prompt": "q", "chosen": [{"role": "user", "content": "a"}], "rejected": "b"}),
            "`chosen` does not end with a message of the assistant",
        ),
        (json!({"prompt": "q", "chosen": "", "rejected": "b"}), "its content is empty"),
    ];
    for (record, expected) in cases {
        let message = read(&record, &FieldNames::default(), RecordKind::Preference).unwrap_err().to_string();
        assert!(message.contains(expected), "{record}: {message}");
    }
}
