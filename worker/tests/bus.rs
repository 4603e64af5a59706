//! The worker on a real nats-server, seen from a gateway.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{Gateway, Nats, Running, name, sim, sim_text, status_until, subjects, within};
use serde_bytes::ByteBuf;
use tokenbus_protocol::{
    Control, ControlReply, Drain, Family, ModelCommand, ModelInfo, Part, Parts, Ping, Resume, ResumeChoice, Status,
    Undrain, WorkerState,
};
use tokio::time::Instant;

const LONG: &str = r#"{"max_tokens":1000000}"#;

fn tokens(n: u64) -> String {
    format!(r#"{{"max_tokens":{n},"messages":[{{"role":"user","content":"two words"}}]}}"#)
}

#[tokio::test]
async fn a_request_on_the_queue_subject_is_accepted_streamed_and_finished() {
    let nats = Nats::start().await;
    let worker = Running::start(&nats, "w1", sim(4, 5, 2)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    gateway.send(&gateway.request(1, 0, &tokens(20))).await;
    assert_eq!(gateway.ended(1, 0).await, "finish 20");
    let seen = gateway.seen(1, 0);
    assert_eq!((seen.text.clone(), seen.tokens), (sim_text(0..20), 20));
    assert_eq!(seen.accepted, Some(("w1".to_owned(), 0)));
    assert_eq!(
        gateway.rooms["w1"].free, 4,
        "the last message tells that the slot is free"
    );
    worker.stopped().await;
}

#[tokio::test]
async fn a_resumed_request_goes_on_where_it_stopped() {
    let nats = Nats::start().await;
    let _worker = Running::start(&nats, "w1", sim(4, 1, 0)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    let mut request = gateway.request(1, 3, &tokens(10));
    request.resume = Some(Resume {
        choices: vec![ResumeChoice {
            text: sim_text(0..6),
            tokens: 6,
            ..ResumeChoice::default()
        }],
    });
    gateway.send_to("w1", &request).await;
    assert_eq!(gateway.ended(1, 3).await, "finish 4");
    assert_eq!(gateway.seen(1, 3).text, sim_text(6..10));
}

#[tokio::test]
async fn a_full_worker_is_busy_at_once_and_offers_its_next_free_slot() {
    let nats = Nats::start().await;
    let _worker = Running::start(&nats, "w1", sim(2, 0, 5)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    for stream in 1..=3 {
        gateway.send(&gateway.request(stream, 0, LONG)).await;
    }
    // The other two never end: it is refused while they run.
    assert_eq!(gateway.ended(3, 0).await, "reject busy");
    gateway.accepted(1, 0).await;
    gateway.accepted(2, 0).await;
    gateway.cancel("w1", 1, 0).await;
    within("an offer", async {
        while gateway.offered == 0 {
            gateway.read().await;
        }
    })
    .await;
    assert_eq!((gateway.offered, gateway.rooms["w1"].free), (1, 1));
    gateway.send(&gateway.request(4, 0, LONG)).await;
    gateway.accepted(4, 0).await;
}

#[tokio::test]
async fn a_queue_of_its_own_is_served_by_priority() {
    let nats = Nats::start().await;
    let _worker = Running::with(&nats, "w1", sim(1, 0, 2), |options| options.queue = 2).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    gateway.send_to("w1", &gateway.request(1, 0, LONG)).await;
    gateway.send_to("w1", &gateway.request(2, 0, &tokens(2))).await;
    let mut urgent = gateway.request(3, 0, &tokens(2));
    urgent.priority = 9;
    gateway.send_to("w1", &urgent).await;
    gateway.send_to("w1", &gateway.request(4, 0, LONG)).await;
    assert_eq!(gateway.ended(4, 0).await, "reject busy");
    assert_eq!(gateway.seen(2, 0).accepted, Some(("w1".to_owned(), 1)));
    assert_eq!(gateway.seen(3, 0).accepted, Some(("w1".to_owned(), 1)));
    gateway.until(2, 0, "sign of life", |seen| seen.alive > 0).await;
    assert!(gateway.seen(2, 0).text.is_empty());
    gateway.cancel("w1", 1, 0).await;
    gateway.ended(3, 0).await;
    assert!(!gateway.seen(2, 0).is_ended(), "the urgent one was first");
    assert_eq!(gateway.ended(2, 0).await, "finish 2");
}

#[tokio::test]
async fn the_same_id_is_never_run_twice_at_once() {
    let nats = Nats::start().await;
    let _worker = Running::start(&nats, "w1", sim(4, 0, 5)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    gateway.send(&gateway.request(1, 0, LONG)).await;
    gateway.accepted(1, 0).await;
    // Published again because `Accepted` seemed late: the first one goes on.
    gateway.send(&gateway.request(1, 1, LONG)).await;
    assert_eq!(gateway.ended(1, 1).await, "reject duplicate");
    let so_far = gateway.seen(1, 0).tokens;
    gateway.until(1, 0, "more tokens", |seen| seen.tokens > so_far).await;
    // The gateway has given up on attempts below 2: the old one is stopped, the new one runs.
    let mut again = gateway.request(1, 2, LONG);
    again.floor = 2;
    gateway.send(&again).await;
    gateway.accepted(1, 2).await;
    assert_eq!(gateway.rooms["w1"].free, 3);
    let old = gateway.seen(1, 0).tokens;
    gateway.until(1, 2, "ten tokens", |seen| seen.tokens > 10).await;
    assert_eq!(gateway.seen(1, 0).tokens, old, "the old attempt is silent");
}

#[tokio::test]
async fn a_cancel_frees_the_slot_before_and_after_the_first_token() {
    let nats = Nats::start().await;
    let _worker = Running::start(&nats, "w1", sim(1, 1000, 5)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    gateway.send(&gateway.request(1, 0, LONG)).await;
    gateway.accepted(1, 0).await;
    gateway.cancel("w1", 1, 0).await;
    gateway.send(&gateway.request(2, 0, LONG)).await;
    gateway.accepted(2, 0).await;
    gateway.until(2, 0, "tokens", |seen| seen.tokens > 2).await;
    assert_eq!(gateway.seen(1, 0).tokens, 0, "nothing of what was cancelled");
    gateway.cancel("w1", 2, 0).await;
    gateway.send(&gateway.request(3, 0, &tokens(2))).await;
    assert_eq!(gateway.ended(3, 0).await, "finish 2");
}

#[tokio::test]
async fn a_long_prefill_gives_signs_of_life() {
    let nats = Nats::start().await;
    let _worker = Running::start(&nats, "w1", sim(1, 2500, 1)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    gateway.send(&gateway.request(1, 0, &tokens(2))).await;
    assert_eq!(gateway.ended(1, 0).await, "finish 2");
    // One a second, for as long as the prefill took on this machine.
    assert!((1..=10).contains(&gateway.seen(1, 0).alive));
}

#[tokio::test]
async fn a_body_in_parts_reaches_the_engine_whole() {
    let nats = Nats::start().await;
    let _worker = Running::start(&nats, "w1", sim(1, 0, 0)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    let body = format!(r#"{{"sim":{{"echo":true}},"pad":"{}"}}"#, "é".repeat(1_500_000));
    let chunks: Vec<&[u8]> = body.as_bytes().chunks(700_000).collect();
    let mut request = gateway.request(1, 0, "");
    request.body = chunks[0].to_vec().into();
    request.parts = Some(Parts {
        count: u32::try_from(chunks.len()).unwrap(),
        bytes: body.len() as u64,
    });
    gateway.send_to("w1", &request).await;
    gateway.accepted(1, 0).await;
    for (index, chunk) in (0..request.parts.unwrap().count).zip(&chunks).skip(1).rev() {
        let data = ByteBuf::from(*chunk);
        let part = Part {
            id: request.id,
            attempt: 0,
            index,
            data,
        };
        gateway.control("w1", &Control::Part(part)).await;
    }
    assert_eq!(gateway.ended(1, 0).await, "finish 1");
    assert!(
        gateway.seen(1, 0).text == body,
        "3 MB of answer, split into frames and joined"
    );
}

#[tokio::test]
async fn every_request_byte_reaches_the_engine_unchanged() {
    let nats = Nats::start().await;
    let _worker = Running::start(&nats, "w1", sim(1, 0, 0)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    let body = r#"{"temperature":0.70,"top_p":1.0,"top_k":40,"stop":["a","b"],"presence_penalty":-0.5,"frequency_penalty":1,
        "repetition_penalty":1.1,"seed":12345678901234567890,"logit_bias":{"50256":-100},"max_tokens":5,"x_unknown":[null],"sim":{"echo":true}}"#;
    gateway.send(&gateway.request(1, 0, body)).await;
    gateway.ended(1, 0).await;
    assert_eq!(gateway.seen(1, 0).text, body);
}

#[tokio::test]
async fn the_deadline_ends_a_stream() {
    let nats = Nats::start().await;
    let _worker = Running::start(&nats, "w1", sim(1, 0, 5)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    let mut request = gateway.request(1, 0, LONG);
    request.budget_ms = 1000;
    gateway.send(&request).await;
    assert_eq!(gateway.ended(1, 0).await, "error timeout false");
    assert!(gateway.seen(1, 0).tokens > 5);
    assert_eq!(gateway.rooms["w1"].free, 1);
}

#[tokio::test]
async fn scripted_failures_come_as_they_are() {
    let nats = Nats::start().await;
    let _worker = Running::start(&nats, "w1", sim(4, 0, 1)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    let failing = r#"{"sim":{"error_after":2,"error_code":"context_length_exceeded"}}"#;
    gateway.send(&gateway.request(1, 0, failing)).await;
    assert_eq!(gateway.ended(1, 0).await, "error context_length_exceeded false");
    assert_eq!(gateway.seen(1, 0).tokens, 2);
    gateway
        .send(&gateway.request(2, 0, r#"{"sim":{"drop_after":1}}"#))
        .await;
    assert_eq!(gateway.ended(2, 0).await, "error internal true");
    gateway.send(&gateway.request(3, 0, "not json")).await;
    assert_eq!(gateway.ended(3, 0).await, "error bad_request false");
    assert_eq!(gateway.rooms["w1"].free, 4);
}

#[tokio::test]
async fn malformed_bytes_on_every_subject_change_nothing() {
    let nats = Nats::start().await;
    let _worker = Running::start(&nats, "w1", sim(1, 0, 1)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    let s = subjects();
    let good = tokenbus_protocol::encode(&gateway.request(9, 0, "{}")).unwrap();
    for subject in [
        s.request(Family::Generate, "m"),
        s.request_to(Family::Generate, "m", &name("w1")),
        s.control(&name("w1")),
    ] {
        for bytes in [
            &b""[..],
            b"\x01",
            b"\x7fxx",
            b"\x01\xc1",
            b"GET / HTTP/1.1",
            &good[..good.len() / 2],
        ] {
            gateway
                .client
                .publish(subject.clone(), bytes.to_vec().into())
                .await
                .unwrap();
        }
    }
    gateway.send(&gateway.request(1, 0, &tokens(3))).await;
    assert_eq!(gateway.ended(1, 0).await, "finish 3");
    assert_eq!(gateway.streams.len(), 1, "and nobody was answered for them");
}

#[tokio::test]
async fn the_status_tells_the_load_soon_and_the_end_at_once() {
    let nats = Nats::start().await;
    let client = nats.client().await;
    let mut statuses = client.subscribe(subjects().status_all()).await.unwrap();
    client.flush().await.unwrap();
    let worker = Running::start(&nats, "w1", sim(3, 20, 5)).await;
    let gateway = Gateway::start(&nats, "g").await;
    let idle = status_until(&mut statuses, "ready", |s| s.report.state == WorkerState::Ready).await;
    assert_eq!(
        (
            idle.report.worker.as_str(),
            idle.report.slots,
            idle.report.active,
            idle.report.engine.as_str()
        ),
        ("w1", 3, 0, "sim")
    );
    // Ten changes, which would take at least nine seconds to be told by the statuses in turn.
    let before = Instant::now();
    for stream in 101..=105 {
        gateway.send(&gateway.request(stream, 0, LONG)).await;
        let busy = status_until(&mut statuses, "one active", |s| s.report.active == 1).await;
        assert!(busy.report.seq > idle.report.seq && busy.report.instance == idle.report.instance);
        gateway.cancel("w1", stream, 0).await;
        status_until(&mut statuses, "none active", |s| s.report.active == 0).await;
    }
    assert!(before.elapsed() < Duration::from_secs(8), "{:?}", before.elapsed());
    gateway.send(&gateway.request(1, 0, LONG)).await;
    // A busy machine delays tokens, and those behind them come at once: awaited, not read once.
    status_until(&mut statuses, "rates", |s| {
        s.report.tokens_per_second > 50.0
            && (4.0..400.0).contains(&s.report.itl.p50)
            && (15.0..2000.0).contains(&s.report.ttft.p50)
    })
    .await;
    gateway.cancel("w1", 1, 0).await;
    let free = status_until(&mut statuses, "none active", |s| s.report.active == 0).await;
    assert_eq!(free.totals.cancelled, 6);
    worker.stopped().await;
    let last = status_until(&mut statuses, "stopped", |s| s.report.state == WorkerState::Stopped).await;
    assert!(last.report.seq > free.report.seq);
}

#[tokio::test]
async fn models_appear_and_vanish_while_it_runs() {
    let nats = Nats::start().await;
    let _worker = Running::start(&nats, "w1", sim(1, 0, 0)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    let mut statuses = gateway.client.subscribe(subjects().status_all()).await.unwrap();
    let command = ModelCommand {
        model: "a/b:c d*>é".to_owned(),
    };
    let mut request = gateway.request(1, 0, &tokens(2));
    request.model.clone_from(&command.model);
    assert!(matches!(
        gateway.ask("w1", &Control::Load(command.clone())).await,
        ControlReply::Done(_)
    ));
    let has = |models: &[ModelInfo]| models.iter().any(|m| m.name == command.model);
    status_until(&mut statuses, "new model", |s: &Status| has(&s.report.models)).await;
    // The reply came from the engine; the subscription follows a moment later.
    let subject = subjects().request(request.kind.family(), &request.model);
    until_responders(&gateway, &subject, true).await;
    gateway.send(&request).await;
    assert_eq!(gateway.ended(1, 0).await, "finish 2");
    assert!(matches!(
        gateway.ask("w1", &Control::Unload(command.clone())).await,
        ControlReply::Done(_)
    ));
    status_until(&mut statuses, "model gone", |s: &Status| !has(&s.report.models)).await;
    until_responders(&gateway, &subject, false).await;
    assert!(matches!(
        gateway.ask("w1", &Control::Unload(command)).await,
        ControlReply::Refused(_)
    ));
}

/// Waits until somebody (or nobody) is subscribed to `subject`: asks with bytes that nobody
/// answers, so that only the server's own answer comes.
async fn until_responders(gateway: &Gateway, subject: &str, wanted: bool) {
    within("change of interest", async {
        loop {
            let ask = async_nats::Request::new()
                .payload("".into())
                .timeout(Some(Duration::from_millis(100)));
            let answer = gateway.client.send_request(subject.to_owned(), ask).await;
            let nobody = answer.is_err_and(|e| e.kind() == async_nats::RequestErrorKind::NoResponders);
            if nobody != wanted {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_stopping_worker_finishes_what_it_has_and_refuses_what_comes() {
    let nats = Nats::start().await;
    let mut worker = Running::start(&nats, "w1", sim(2, 0, 5)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    let mut statuses = gateway.client.subscribe(subjects().status_all()).await.unwrap();
    gateway.send(&gateway.request(1, 0, &tokens(100))).await;
    gateway.accepted(1, 0).await;
    worker.ask_to_stop();
    let draining = status_until(&mut statuses, "draining", |s| s.report.state == WorkerState::Draining).await;
    assert_eq!(draining.report.active, 1);
    // What is published from now on is refused, or meets nobody; it is never swallowed.
    let subject = subjects().request(Family::Generate, "m");
    until_responders(&gateway, &subject, false).await;
    assert_eq!(gateway.ended(1, 0).await, "finish 100");
    assert_eq!(gateway.seen(1, 0).text, sim_text(0..100));
    worker.stopped().await;
    status_until(&mut statuses, "stopped", |s| s.report.state == WorkerState::Stopped).await;
}

#[tokio::test]
async fn after_the_grace_period_streams_are_handed_over() {
    let nats = Nats::start().await;
    let mut worker = Running::with(&nats, "w1", sim(2, 0, 5), |options| {
        options.grace = Duration::from_millis(200);
    })
    .await;
    let mut gateway = Gateway::start(&nats, "g").await;
    gateway.send(&gateway.request(1, 0, LONG)).await;
    gateway.until(1, 0, "tokens", |seen| seen.tokens > 3).await;
    worker.ask_to_stop();
    assert_eq!(gateway.ended(1, 0).await, "error draining true");
    let seen = gateway.seen(1, 0);
    assert_eq!(seen.text, sim_text(0..seen.tokens), "nothing is missing before it");
    worker.stopped().await;
}

#[tokio::test]
async fn a_drain_by_control_can_be_undone() {
    let nats = Nats::start().await;
    let _worker = Running::start(&nats, "w1", sim(2, 0, 2)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    assert!(matches!(
        gateway.ask("w1", &Control::Drain(Drain::default())).await,
        ControlReply::Done(_)
    ));
    let ControlReply::Pong(pong) = gateway.ask("w1", &Control::Ping(Ping {})).await else {
        panic!("no pong")
    };
    assert_eq!((pong.state, pong.room.free), (WorkerState::Draining, 0));
    let subject = subjects().request(Family::Generate, "m");
    until_responders(&gateway, &subject, false).await;
    assert!(matches!(
        gateway.ask("w1", &Control::Undrain(Undrain {})).await,
        ControlReply::Done(_)
    ));
    until_responders(&gateway, &subject, true).await;
    gateway.send(&gateway.request(1, 0, &tokens(2))).await;
    assert_eq!(gateway.ended(1, 0).await, "finish 2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_streams_are_in_order_without_holes() {
    const STREAMS: u64 = 200;
    let nats = Nats::start().await;
    let _worker = Running::start(&nats, "w1", sim(256, 10, 10)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    for stream in 1..=STREAMS {
        gateway.send(&gateway.request(stream, 0, &tokens(50))).await;
    }
    for stream in 1..=STREAMS {
        assert_eq!(gateway.ended(stream, 0).await, "finish 50");
        assert_eq!(gateway.seen(stream, 0).text, sim_text(0..50));
    }
    assert!(gateway.frames >= STREAMS * 52);
    assert!(
        gateway.messages * 8 < gateway.frames,
        "{} messages for {} frames: streams share messages",
        gateway.messages,
        gateway.frames
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_fast_as_it_goes_nothing_is_lost_and_no_stream_fails() {
    const STREAMS: u64 = 64;
    let nats = Nats::start().await;
    let _worker = Running::start(&nats, "w1", sim(64, 0, 0)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    for stream in 1..=STREAMS {
        gateway.send(&gateway.request(stream, 0, &tokens(2000))).await;
    }
    for stream in 1..=STREAMS {
        assert_eq!(gateway.ended(stream, 0).await, "finish 2000");
        assert!(gateway.seen(stream, 0).text == sim_text(0..2000));
    }
}

#[tokio::test]
async fn work_is_shared_within_the_queue_group_and_directed_requests_go_where_they_should() {
    let nats = Nats::start().await;
    let _one = Running::start(&nats, "w1", sim(100, 0, 1)).await;
    let _two = Running::start(&nats, "w2", sim(100, 0, 1)).await;
    let mut gateway = Gateway::start(&nats, "g").await;
    for stream in 1..=60 {
        gateway.send(&gateway.request(stream, 0, &tokens(2))).await;
    }
    gateway.send_to("w2", &gateway.request(61, 0, &tokens(2))).await;
    let mut by_one = 0;
    for stream in 1..=61 {
        assert_eq!(gateway.ended(stream, 0).await, "finish 2");
        let (worker, _) = gateway.seen(stream, 0).accepted.clone().unwrap();
        assert!(worker == "w2" || stream < 61);
        by_one += u32::from(worker == "w1");
    }
    assert!((10..=50).contains(&by_one), "{by_one} of 60 went to the first");
}
