//! Items of tools that only OpenAI's servers or models have, as they stand in the history of a conversation that began
//! there.

use serde_json::value::RawValue;

use super::input::{call, parts};
use crate::request::RequestError;
use crate::request::member_reader::MemberReader;
use crate::translation::conversation::{Conversation, Part};

/// Calls of tools that OpenAI's servers ran. They say only that there was one: its result is in the answer behind it.
const SILENT: [&str; 8] = [
    "web_search_call",
    "file_search_call",
    "image_generation_call",
    "code_interpreter_call",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
    "program",
];

/// Calls of tools that the client ran, the members with their arguments, and their results' type.
const CALLS: [(&str, &str, &str); 5] = [
    ("local_shell_call", "action", "local_shell_call_output"),
    ("shell_call", "action", "shell_call_output"),
    ("apply_patch_call", "operation", "apply_patch_call_output"),
    ("computer_call", "action", "computer_call_output"),
    ("tool_search_call", "arguments", "tool_search_output"),
];

/// The call of a tool of a remote server, with its result.
const REMOTE: &str = "mcp_call";

/// Whether items of this type have a place in a chat.
pub(super) fn is_told(kind: &str) -> bool {
    let paired = |(call, _, result): &(&str, &str, &str)| *call == kind || *result == kind;
    kind == REMOTE || SILENT.contains(&kind) || CALLS.iter().any(paired)
}

/// Appends what an item of such a type says: calls and results become those of functions.
///
/// # Errors
/// [`RequestError`] for a malformed one.
pub(super) fn append(kind: &str, mut item: MemberReader, conversation: &mut Conversation) -> Result<(), RequestError> {
    if kind == REMOTE {
        let id: String = item.need("id")?;
        let arguments: Option<String> = item.take("arguments")?;
        call(
            conversation,
            id.clone(),
            item.need("name")?,
            arguments.unwrap_or_default(),
        );
        let result: Option<String> = item.take("output")?;
        conversation.result(id, vec![Part::text(result.unwrap_or_default())]);
        return Ok(());
    }
    for (kind_of_call, arguments, result) in CALLS {
        // What was run by a server has no id for a result.
        let id = |item: &mut MemberReader| item.take::<String>("call_id");
        if kind == kind_of_call {
            if let Some(id) = id(&mut item)? {
                let name = kind.trim_end_matches("_call").to_owned();
                let arguments = item.raw(arguments);
                let arguments = arguments.map_or_else(|| "{}".to_owned(), |raw| raw.get().to_owned());
                call(conversation, id, name, arguments);
            }
        } else if kind == result
            && let Some(id) = id(&mut item)?
        {
            let at = item.at("output");
            let told = item.raw("output").or_else(|| item.raw("tools"));
            let told = told.map_or_else(Vec::new, |raw| plain(&at, &raw));
            conversation.result(id, told);
        }
    }
    Ok(())
}

/// A result as parts; what has a form of its own is told as JSON.
fn plain(at: &str, raw: &RawValue) -> Vec<Part> {
    parts(at, raw).unwrap_or_else(|_| vec![Part::text(raw.get())])
}
