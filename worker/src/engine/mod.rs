//! The engines that a worker brings: any OpenAI-compatible server, and llama.cpp run by the worker. What an engine
//! is stands in the crate `tokenbus-engine`.

pub mod llama;
pub mod openai;

pub use tokenbus_engine::{
    Closed, Engine, EngineInfo, Health, Job, ModelCommandError, Overrides, OverridesError, Running, Sink,
};
