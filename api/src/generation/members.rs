//! The members that requests for chats and for text completions share.

/// Declares the request of one API: its own members, and those of both. `Option` takes a null as absent, as OpenAI
/// does. A name with an underscore is a member that is checked and not used.
macro_rules! generation_request {
    (struct $name:ident { $($own:tt)* }) => {
        #[derive(serde::Deserialize)]
        #[serde(expecting = "an object")]
        struct $name {
            $($own)*
            model: Option<String>,
            stream: Option<bool>,
            stream_options: Option<$crate::request::fields::StreamOptions>,
            n: Option<$crate::request::fields::Integer>,
            #[serde(rename = "max_tokens")]
            _max_tokens: Option<$crate::request::fields::Integer>,
            #[serde(rename = "temperature")]
            _temperature: Option<$crate::request::fields::Number>,
            #[serde(rename = "top_p")]
            _top_p: Option<$crate::request::fields::Number>,
            #[serde(rename = "presence_penalty")]
            _presence_penalty: Option<$crate::request::fields::Number>,
            #[serde(rename = "frequency_penalty")]
            _frequency_penalty: Option<$crate::request::fields::Number>,
            #[serde(rename = "repetition_penalty")]
            _repetition_penalty: Option<$crate::request::fields::Number>,
            #[serde(rename = "stop")]
            _stop: Option<$crate::request::fields::Texts>,
            #[serde(rename = "seed")]
            _seed: Option<$crate::request::fields::Integer>,
            #[serde(rename = "logit_bias")]
            _logit_bias: Option<$crate::request::fields::LogitBias>,
            response_format: Option<$crate::request::fields::ResponseFormat>,
            guided_json: Option<serde::de::IgnoredAny>,
            guided_regex: Option<serde::de::IgnoredAny>,
            guided_choice: Option<serde::de::IgnoredAny>,
            guided_grammar: Option<serde::de::IgnoredAny>,
            structured_outputs: Option<serde::de::IgnoredAny>,
            grammar: Option<serde::de::IgnoredAny>,
            json_schema: Option<serde::de::IgnoredAny>,
            regex: Option<serde::de::IgnoredAny>,
            ebnf: Option<serde::de::IgnoredAny>,
        }

        impl $name {
            /// Whether `response_format` constrains the output.
            fn has_format(&self) -> bool {
                self.response_format.as_ref().is_some_and(|format| !format.is_text())
            }

            fn has_schema(&self) -> bool {
                self.response_format.as_ref().is_some_and(|format| format.is_schema())
            }

            /// Whether a member that only some engines know constrains the output.
            fn has_grammar(&self) -> bool {
                let members = [
                    &self.guided_json,
                    &self.guided_regex,
                    &self.guided_choice,
                    &self.guided_grammar,
                    &self.structured_outputs,
                    &self.grammar,
                    &self.json_schema,
                    &self.regex,
                    &self.ebnf,
                ];
                members.iter().any(|member| member.is_some())
            }

            fn include_usage(&self) -> bool {
                self.stream_options.as_ref().is_some_and(|options| options.include_usage())
            }
        }
    };
}

pub(crate) use generation_request;
