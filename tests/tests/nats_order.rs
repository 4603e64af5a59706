//! Which of several NATS servers is used: the first in the order given that answers.
#![allow(clippy::unwrap_used, clippy::panic)]

use async_nats::RequestErrorKind;
use tokenbus_protocol::{Control, Name, Ping, Subjects};
use tokenbus_tests::{NatsServer, Role, eventually};

/// Whether worker `id` is connected to `server`, which is routed to no other.
async fn is_at(server: &NatsServer, id: &str) -> bool {
    let client = server.client().await;
    let subject = Subjects::new(Name::new("tb").unwrap()).control(&Name::new(id).unwrap());
    let ping = tokenbus_protocol::encode(&Control::Ping(Ping {})).unwrap();
    match client.request(subject, ping.into()).await {
        Ok(_) => true,
        Err(error) if error.kind() == RequestErrorKind::NoResponders => false,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn the_first_server_that_answers_is_used_at_the_start_and_after_a_loss() {
    let (mut first, second) = (NatsServer::start().await, NatsServer::start().await);
    let both = format!("{},{}", first.url(), second.url());
    let ids: Vec<String> = (0..6).map(|number| format!("w{number}")).collect();
    let mut workers = Vec::new();
    for id in &ids {
        // Ready is what it says when its server has confirmed its subscriptions.
        workers.push(Role::sim("m", 1).args(&["--id", id]).start(&both).await);
        assert!(is_at(&first, id).await && !is_at(&second, id).await, "{id}");
    }
    first.kill().await;
    for id in &ids {
        eventually("the worker at the second server", async || {
            if is_at(&second, id).await { Ok(()) } else { Err("away") }
        })
        .await;
    }
    first.start_again().await;
    let late = Role::sim("m", 1).args(&["--id", "late"]).start(&both).await;
    assert!(is_at(&first, "late").await);
    drop((workers, late));
}
