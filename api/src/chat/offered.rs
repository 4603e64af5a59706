//! A chat request without the tools that it only offers: a model that knows no tools answers it as if there were none.

use bytes::Bytes;
use tokenbus_protocol::{Features, RawObject};

use super::check::chat_view;

/// The members that offer tools.
const OFFERS: [&str; 5] = [
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
];

/// The members that choose among tools.
const CHOICES: [&str; 2] = ["tool_choice", "function_call"];

/// A request that offers no tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithoutTools {
    /// Its body.
    pub body: Bytes,
    /// What the engine must be able to do.
    pub needs: Features,
    /// Why no other engine can continue the answer, if so.
    pub not_resumable: Option<&'static str>,
}

/// `body`, a checked chat request, without its tools; `None` if it demands a call.
pub fn without_offered_tools(body: &[u8]) -> Option<WithoutTools> {
    let mut chat = RawObject::parse(body).ok()?;
    let leaves_it_open = |choice: &str| matches!(choice, "null" | r#""auto""# | r#""none""#);
    let demands = |name: &str| chat.get(name).is_some_and(|choice| !leaves_it_open(choice.get()));
    if CHOICES.into_iter().any(demands) {
        return None;
    }
    for name in OFFERS {
        chat.remove(name);
    }
    let body = Bytes::from(chat.to_json().ok()?.get().to_owned());
    let view = chat_view(&body).ok()?;
    Some(WithoutTools {
        body,
        needs: view.needs,
        not_resumable: view.not_resumable,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HEAD: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]"#;
    const TOOL: &str = r#"[{"type":"function","function":{"name":"f"}}]"#;

    #[test]
    fn offered_tools_are_left_out_and_nothing_else_is() {
        for offer in [
            format!(r#","tools":{TOOL}"#),
            format!(r#","tools":{TOOL},"tool_choice":"auto","parallel_tool_calls":true"#),
            format!(r#","tools":{TOOL},"tool_choice":null"#),
            r#","functions":[{"name":"f"}],"function_call":"auto""#.to_owned(),
        ] {
            let without = without_offered_tools(format!("{HEAD}{offer},\"seed\":1}}").as_bytes()).unwrap();
            assert_eq!(without.body, format!("{HEAD},\"seed\":1}}"));
            assert_eq!((without.needs, without.not_resumable), (Features::NONE, None));
        }
        let schema = r#","response_format":{"type":"json_schema","json_schema":{"name":"a","schema":{}}}"#;
        let without = without_offered_tools(format!("{HEAD},\"tools\":{TOOL}{schema}}}").as_bytes()).unwrap();
        assert!(without.needs == tokenbus_protocol::Feature::JsonSchema.into() && without.not_resumable.is_some());
    }

    #[test]
    fn a_demanded_call_is_not_left_out() {
        for choice in [
            r#""tool_choice":"required""#,
            r#""tool_choice":"any""#,
            r#""tool_choice":{"type":"function","function":{"name":"f"}}"#,
            r#""function_call":{"name":"f"}"#,
        ] {
            let body = format!("{HEAD},\"tools\":{TOOL},{choice}}}");
            assert_eq!(without_offered_tools(body.as_bytes()), None, "{choice}");
        }
    }
}
