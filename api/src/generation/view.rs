//! A checked request for generated text, and the form of its answer.

use std::marker::PhantomData;

use tokenbus_protocol::Features;

use super::collector::Collector;
use super::encoder::ChunkEncoder;
use super::style::Style;
use crate::answer::{Collect, Encoder, Form, Identity};
use crate::request::Checked;

/// What tokenbus itself needs to know of a request for generated text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GenerationView {
    /// The model; not empty, at most `MAX_MODEL_NAME` bytes.
    pub(crate) model: String,
    /// Whether the answer is streamed.
    pub(crate) stream: bool,
    /// Whether a streamed answer ends with its usage.
    pub(crate) include_usage: bool,
    /// Choices that the client asked for, over all prompts: 1 to the style's `MAX_CHOICES`.
    pub(crate) choices: u32,
    /// What the engine must be able to do.
    pub(crate) needs: Features,
    /// Why no other engine can continue the answer, if so.
    pub(crate) not_resumable: Option<&'static str>,
}

impl GenerationView {
    /// The request, with an answer in style `S`.
    pub(crate) fn into_checked<S: Style>(self) -> Checked {
        let form = GenerationForm {
            stream: self.stream,
            include_usage: self.include_usage,
            style: PhantomData::<S>,
        };
        Checked {
            not_resumable: self.not_resumable,
            needs: self.needs,
            ..Checked::new(self.model, form)
        }
    }
}

#[derive(Debug)]
struct GenerationForm<S> {
    stream: bool,
    include_usage: bool,
    style: PhantomData<S>,
}

impl<S: Style> Form for GenerationForm<S> {
    fn is_stream(&self) -> bool {
        self.stream
    }

    fn encoder(&self, identity: Identity) -> Box<dyn Encoder> {
        Box::new(ChunkEncoder::<S>::new(identity, self.include_usage))
    }

    fn collector(&self, identity: Identity) -> Box<dyn Collect> {
        Box::new(Collector::<S>::new(identity))
    }
}
