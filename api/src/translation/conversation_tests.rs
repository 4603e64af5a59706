//! Messages are such as strict chat templates take.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn messages(conversation: Conversation) -> Value {
    let mut messages = serde_json::to_value(conversation.finish()).unwrap();
    for message in messages.as_array_mut().unwrap() {
        let members = message.as_object_mut().unwrap();
        members.retain(|_, value| !value.is_null());
    }
    messages
}

fn call(id: &str) -> ToolCall {
    ToolCall {
        id: id.to_owned(),
        function: Function {
            name: "f".to_owned(),
            arguments: "{}".to_owned(),
        },
    }
}

fn user(conversation: &mut Conversation, text: &str) {
    conversation.user(vec![Part::text(text)]);
}

#[test]
fn a_system_message_behind_the_beginning_is_a_block_in_the_next_message_of_the_user() {
    let mut talk = Conversation::default();
    talk.system("A");
    talk.system("B");
    user(&mut talk, "hi");
    talk.assistant_item("yes");
    talk.system("C");
    user(&mut talk, "go");
    talk.system("D");
    assert_eq!(
        messages(talk),
        json!([
            {"role": "system", "content": "A\n\nB"},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": "<system>\nC\n</system>\n\ngo\n\n<system>\nD\n</system>"},
        ])
    );
}

#[test]
fn without_a_next_message_of_the_user_the_block_is_one_itself() {
    let mut talk = Conversation::default();
    user(&mut talk, "hi");
    talk.assistant_item("yes");
    talk.system("C");
    talk.assistant_item("well");
    let talk = messages(talk);
    assert_eq!(talk[2], json!({"role": "user", "content": "<system>\nC\n</system>"}));
    assert_eq!(talk[3]["content"], "well");
}

#[test]
fn a_system_message_does_not_part_calls_from_their_results() {
    let mut talk = Conversation::default();
    user(&mut talk, "hi");
    talk.call(call("1"));
    talk.system("C");
    talk.call(call("2"));
    talk.result("1".to_owned(), vec![Part::text("one"), Part::image("data:x", None)]);
    talk.system("D");
    talk.result("2".to_owned(), vec![Part::text("two")]);
    let talk = messages(talk);
    let roles: Vec<&str> = talk
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["user", "assistant", "tool", "tool", "user"]);
    assert_eq!(talk[1]["tool_calls"].as_array().unwrap().len(), 2);
    assert_eq!(talk[4]["content"][0]["type"], "image_url");
    assert_eq!(talk[4]["content"][1]["text"], "<system>\nC\n</system>");
    assert_eq!(talk[4]["content"][2]["text"], "<system>\nD\n</system>");
}

#[test]
fn a_text_before_a_system_message_and_a_call_behind_it_keep_their_order() {
    let mut talk = Conversation::default();
    user(&mut talk, "hi");
    talk.assistant_item("let me see");
    talk.system("C");
    talk.call(call("1"));
    talk.result("1".to_owned(), Vec::new());
    let talk = messages(talk);
    let roles: Vec<&str> = talk
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant", "tool"]);
}

#[test]
fn neighbours_of_one_role_become_one_message() {
    let mut talk = Conversation::default();
    user(&mut talk, "a");
    user(&mut talk, "b");
    talk.begin_assistant();
    talk.text_block("c");
    talk.begin_assistant();
    talk.reasoning("hm");
    talk.text_block("d");
    talk.call(call("1"));
    talk.begin_assistant();
    talk.text_block("e");
    talk.user(vec![Part::image("data:x", None)]);
    user(&mut talk, "f");
    let talk = messages(talk);
    assert_eq!(talk[0], json!({"role": "user", "content": "a\n\nb"}));
    assert_eq!(talk[1]["content"], "c\n\nd");
    assert_eq!(talk[1]["reasoning_content"], "hm");
    assert_eq!(talk[1]["tool_calls"].as_array().unwrap().len(), 1);
    assert_eq!(talk[2]["content"], "e", "calls are answered before more is said");
    assert_eq!(talk[3]["content"].as_array().unwrap().len(), 2);
    assert_eq!(talk.as_array().unwrap().len(), 4);
}
