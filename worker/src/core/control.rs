//! Control messages: cancel, parts, drain and undrain, load and unload, ping.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokenbus_protocol::{Control, ControlReply, Disown, Done, Drain, ModelCommand, Pong, Refused};

use crate::core::Core;
use crate::core::admission::Cancelled;
use crate::engine::{Engine, ModelCommandError};

/// Models that are loaded or unloaded at the same time at most: each may take minutes and
/// gigabytes.
const COMMANDS: usize = 8;

impl Core {
    /// A message on this worker's control subject; `reply` is where an answer is waited for.
    pub(crate) fn on_control(&mut self, payload: &[u8], reply: Option<String>, now: Instant) {
        let reply = reply.filter(|subject| self.parts.subjects.is_reply(subject));
        let control: Control = match tokenbus_protocol::decode(payload) {
            Ok(control) => control,
            Err(error) => {
                self.on_malformed(&error, "control", payload.len(), now);
                return self.answer(reply, &refused(error.to_string()));
            }
        };
        let answer = match control {
            Control::Cancel(cancel) => {
                if let Cancelled::Out(_) = self.admission.cancel(cancel.id, cancel.attempt) {
                    self.stop(cancel.id, now);
                }
                done()
            }
            Control::Disown(disown) => {
                self.on_disown(&disown, now);
                done()
            }
            Control::Part(part) => {
                self.on_part(part, now);
                done()
            }
            Control::Drain(drain) => self.on_drain(drain, now),
            Control::Undrain(_) => self.on_undrain(),
            Control::Load(command) => return self.on_model(command, ModelChange::Load, reply),
            Control::Unload(command) => return self.on_model(command, ModelChange::Unload, reply),
            Control::Ping(_) => ControlReply::Pong(Pong {
                worker: self.parts.identity.worker.clone(),
                instance: self.parts.identity.instance,
                state: self.state(),
                room: self.parts.load.room(),
            }),
            Control::RollCall(call) => {
                self.call_roll(&call.gateway, now);
                done()
            }
            Control::Claim(claim) => {
                self.on_claim(claim, now);
                done()
            }
            Control::TellPrefixes(_) => {
                self.parts.readings.ask();
                done()
            }
            Control::Waits(waits) => {
                self.turns.waits(&waits.gateway);
                done()
            }
            Control::Decline(decline) => {
                self.on_decline(&decline.gateway, decline.slots);
                done()
            }
            Control::Unknown => refused("this worker does not know this command".to_owned()),
        };
        self.answer(reply, &answer);
    }

    /// A gateway does not read a stream. It names the stream as the frames do, because it does not know who sends them.
    fn on_disown(&mut self, disown: &Disown, now: Instant) {
        let mut jobs = self.jobs.iter();
        let unread = jobs.find(|(_, job)| {
            let held = job.stream.held();
            job.gateway == disown.gateway && held.stream == disown.stream && held.attempt <= disown.attempt
        });
        if let Some(id) = unread.map(|(id, _)| *id)
            && let Cancelled::Out(_) = self.admission.cancel(id, disown.attempt)
        {
            self.stop(id, now);
        }
    }

    fn on_drain(&mut self, drain: Drain, now: Instant) -> ControlReply {
        let grace = drain.grace_ms.map_or(self.parts.grace, Duration::from_millis);
        let until = now + grace.min(crate::limits::MAX_BUDGET);
        self.begin_drain(self.drain.drained(until), now);
        done()
    }

    fn on_undrain(&mut self) -> ControlReply {
        match self.drain.undrained() {
            Some(drain) => {
                self.drain = drain;
                tracing::info!("taking requests again");
                self.tell_state();
                done()
            }
            None => refused("the worker is shutting down".to_owned()),
        }
    }

    fn on_model(&mut self, command: ModelCommand, change: ModelChange, reply: Option<String>) {
        if self.commands.len() >= COMMANDS {
            return self.answer(
                reply,
                &refused("too many models are being loaded or unloaded".to_owned()),
            );
        }
        let engine: Arc<dyn Engine> = Arc::clone(&self.parts.engine);
        let post = self.parts.post.clone();
        self.commands.spawn(async move {
            let result = match change {
                ModelChange::Load => engine.load(&command.model).await,
                ModelChange::Unload => engine.unload(&command.model).await,
            };
            if let Some(reply) = reply {
                post.send(reply, &model_answer(&command.model, change, result));
            }
        });
    }

    fn answer(&self, reply: Option<String>, answer: &ControlReply) {
        if let Some(reply) = reply {
            self.parts.post.send(reply, answer);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum ModelChange {
    Load,
    Unload,
}

fn model_answer(model: &str, change: ModelChange, result: Result<(), ModelCommandError>) -> ControlReply {
    match result {
        Ok(()) => {
            tracing::info!(model, ?change, "model");
            done()
        }
        Err(error) => {
            tracing::warn!(model, ?change, %error, "model");
            refused(error.to_string())
        }
    }
}

fn done() -> ControlReply {
    ControlReply::Done(Done {})
}

fn refused(message: String) -> ControlReply {
    ControlReply::Refused(Refused { message })
}
