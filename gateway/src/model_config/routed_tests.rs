//! Tests of trying one model after another, against a scripted cluster in which a model's name says what happens.

use std::time::Duration;

use tokenbus_api::ListedModel;
use tokenbus_protocol::{Delta, Feature, Features, Finish, Labels, Name, RequestKind};
use tokio::time::Instant;

use super::*;
use crate::call::Prospect;
use crate::model_config::model_table::ModelTable;
use crate::placement::Overview;

/// Remembers the opened calls. A model's name says what happens to a call.
#[derive(Clone, Default)]
struct Scripted {
    opened: Arc<Mutex<Vec<Call>>>,
}

struct Script(VecDeque<Result<Output, CallError>>);

impl Backend for Scripted {
    type Stream = Script;

    fn open(&self, call: Call) -> Script {
        let model = call.model.clone();
        self.opened.lock().unwrap().push(call);
        let retry_after = Duration::from_secs(7);
        let text = Output::Delta(Delta {
            text: model.clone().into(),
            ..Delta::default()
        });
        let happens: Vec<Result<Output, CallError>> = match model.split('-').next().unwrap() {
            "unknown" => vec![Err(CallError::UnknownModel {
                model,
                known: vec!["secret".to_owned()],
            })],
            "none" => vec![Err(CallError::NoWorker { model, retry_after })],
            "full" => vec![Err(CallError::Full { model, retry_after })],
            "cannot" => vec![Err(CallError::Unsupported {
                model,
                missing: Features::NONE.with(Feature::Vision),
            })],
            "breaks" => vec![Ok(text), Err(CallError::NoWorker { model, retry_after })],
            "down" => vec![Err(CallError::BusDown { reason: "x".into() })],
            _ => vec![Ok(text), Ok(Output::Finish(Finish::default()))],
        };
        Script(happens.into())
    }

    fn overview(&self) -> Overview {
        Overview {
            lost: vec![],
            gateway: Name::new("gw").unwrap(),
            coordinator: None,
            snapshot_age_ms: None,
            workers: Vec::new(),
            models: Vec::new(),
        }
    }

    fn prospect(&self, model: &str, _needs: Features, _labels: &Labels) -> Prospect {
        match model.split('-').nth(1) {
            Some("full") => Prospect::Full,
            Some("none") => Prospect::NoWorker,
            Some("unknown") => Prospect::Unknown,
            _ => Prospect::Room,
        }
    }

    fn models(&self) -> Vec<ListedModel> {
        Vec::new()
    }

    fn readiness(&self) -> Result<(), String> {
        Ok(())
    }
}

impl CallStream for Script {
    async fn next(&mut self) -> Option<Result<Output, CallError>> {
        self.0.pop_front()
    }

    fn try_next(&mut self) -> Option<Result<Output, CallError>> {
        self.0.pop_front()
    }
}

fn call(model: &str) -> Call {
    Call {
        id: Uuid::now_v7(),
        kind: RequestKind::Chat,
        model: model.to_owned(),
        needs: Features::NONE,
        labels: Default::default(),
        body: Bytes::from(format!(r#"{{"model":"{model}"}}"#)),
        prompt: tokenbus_placement::Prompt::default(),
        session: None,
        deadline: Instant::now(),
        silence: Duration::from_secs(3),
        priority: 0,
        tenant: None,
        address: None,
        client_id: String::new(),
        trace: tokenbus_telemetry::Trace::default(),
        not_resumable: None,
        in_one_piece: false,
        way: crate::story::Way::default(),
    }
}

struct Done {
    text: String,
    error: Option<CallError>,
    opened: Vec<Call>,
    served: Option<String>,
}

impl Done {
    fn models(&self) -> Vec<&str> {
        self.opened.iter().map(|call| call.model.as_str()).collect()
    }
}

async fn done(name: &str, config: &str) -> Done {
    let route = ModelTable::parse(config, false).unwrap().route(name).unwrap();
    let mut seen = Vec::new();
    // Waiting and polling give the same result.
    for wait in [true, false] {
        let (backend, served) = (Scripted::default(), Served::default());
        let mut stream = Routed::open(backend.clone(), call(name), &route, served.clone());
        let (mut text, mut error) = (String::new(), None);
        loop {
            match if wait { stream.next().await } else { stream.try_next() } {
                Some(Ok(Output::Delta(delta))) => text += &delta.text,
                Some(Ok(_)) => {}
                Some(Err(failed)) => error = Some(failed),
                None => break,
            }
        }
        let opened = backend.opened.lock().unwrap().clone();
        seen.push(Done {
            text,
            error,
            opened,
            served: served.model(),
        });
    }
    assert_eq!((&seen[0].text, &seen[0].error), (&seen[1].text, &seen[1].error));
    seen.swap_remove(0)
}

async fn tried(targets: &str) -> Done {
    done("alias", &format!("[models.alias]\ntargets = [{targets}]")).await
}

#[tokio::test]
async fn the_first_that_takes_it_answers() {
    let done = tried("'unknown','none','full','cannot','good','other'").await;
    assert_eq!((done.text.as_str(), &done.error), ("good", &None));
    assert_eq!(done.models(), ["unknown", "none", "full", "cannot", "good"]);
    assert_eq!(done.served.as_deref(), Some("good"));
    let ids: std::collections::HashSet<Uuid> = done.opened.iter().map(|call| call.id).collect();
    assert_eq!(ids.len(), 5, "workers remember the ids that they refused");
    assert_eq!(done.opened[4].body, r#"{"model":"good"}"#);
}

#[tokio::test]
async fn what_can_take_it_at_once_goes_first_and_otherwise_the_order_holds() {
    let done = tried("'a-unknown','full-full','none-none','unknown','good-full'").await;
    assert_eq!(done.models(), ["unknown", "full-full", "good-full"]);
}

#[tokio::test]
async fn when_none_takes_it_the_client_is_told_the_least_severe_about_the_name_that_it_knows() {
    let retry_after = Duration::from_secs(7);
    let model = || "alias".to_owned();
    let full = CallError::Full {
        model: model(),
        retry_after,
    };
    for targets in ["'unknown','full','none'", "'full'", "'full','unknown','cannot'"] {
        assert_eq!(tried(targets).await.error.unwrap(), full, "{targets}");
    }
    let none = CallError::NoWorker {
        model: model(),
        retry_after,
    };
    assert_eq!(tried("'unknown','none','cannot'").await.error.unwrap(), none);
    let unknown = tried("'unknown'").await.error.unwrap();
    assert_eq!(
        unknown,
        CallError::NoWorker {
            model: model(),
            retry_after: NO_WORKER_RETRY
        }
    );
}

#[tokio::test]
async fn a_model_with_defaults_only_that_nobody_has_is_unknown_as_ever() {
    let done = done("unknown", "[models.unknown.defaults]\ntop_k = 3").await;
    assert!(matches!(done.error, Some(CallError::UnknownModel { .. })));
    assert_eq!(done.opened[0].body, r#"{"model":"unknown","top_k":3}"#);
}

#[tokio::test]
async fn once_something_came_of_it_it_stays_where_it_is() {
    let done = tried("'breaks','good'").await;
    assert_eq!((done.text.as_str(), done.models()), ("breaks", vec!["breaks"]));
    assert!(matches!(done.error, Some(CallError::NoWorker { .. })));
}

#[tokio::test]
async fn what_the_next_model_could_not_help_is_told_at_once() {
    let done = tried("'down','good'").await;
    assert_eq!((done.text.as_str(), done.models()), ("", vec!["down"]));
}

#[test]
fn defaults_are_for_what_is_generated() {
    let table = ModelTable::parse("[models.m.defaults]\nmax_tokens = 3", false).unwrap();
    let route = table.route("m").unwrap();
    let (backend, mut call) = (Scripted::default(), call("m"));
    call.kind = RequestKind::Embeddings;
    let body = call.body.clone();
    drop(Routed::open(backend.clone(), call, &route, Served::default()));
    assert_eq!(backend.opened.lock().unwrap()[0].body, body);
}
