//! Gets the view from the bus once.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokenbus_bus::clock::unix_ms;
use tokenbus_bus::{Bus, BusError, BusOptions};
use tokenbus_coordinator::Glance;
use tokenbus_protocol::{Capacity, CoordinatorBeat, Name, Status, Subjects, decode};
use tokio::time::{Instant as Deadline, timeout, timeout_at};

use super::error::StatusError;
use super::limits::{ANSWER, BEATS, CONNECT, STATUSES};
use super::view::{Source, View};

/// Connects, or says after two seconds that it cannot.
pub(super) async fn connect(options: &BusOptions) -> Result<Bus, StatusError> {
    let bus = Bus::connect(options).await?;
    if timeout(CONNECT, bus.connected()).await.is_err() {
        let reason = bus.link().borrow().reason.clone();
        let servers = options.display_urls();
        return Err(StatusError::Unreachable { servers, reason });
    }
    Ok(bus)
}

/// The view as a coordinator has it, or else as the workers tell it.
pub(super) async fn view(bus: &Bus, namespace: &Name) -> Result<View, StatusError> {
    let subjects = Subjects::new(namespace.clone());
    let (coordinators, answer) = tokio::join!(coordinators(bus, &subjects), ask(bus, &subjects));
    let (source, capacity) = match answer? {
        Some(capacity) => (Source::Coordinator, capacity),
        None => (Source::Workers, listen(bus, &subjects).await?),
    };
    Ok(View {
        namespace: namespace.clone(),
        source,
        coordinators: coordinators?,
        capacity,
    })
}

/// The coordinators that send heartbeats.
async fn coordinators(bus: &Bus, subjects: &Subjects) -> Result<BTreeMap<Name, bool>, BusError> {
    let mut beats = bus.subscribe(subjects.coordinator_all()).await?;
    let deadline = Deadline::now() + BEATS;
    let mut heard = BTreeMap::new();
    while let Ok(Some(message)) = timeout_at(deadline, beats.next()).await {
        if let Ok(beat) = decode::<CoordinatorBeat>(&message.payload) {
            heard.insert(beat.coordinator, beat.leading);
        }
    }
    Ok(heard)
}

/// The snapshot that a coordinator answers with, if one answers.
async fn ask(bus: &Bus, subjects: &Subjects) -> Result<Option<Capacity>, StatusError> {
    let request = bus.client().request(subjects.capacity_get(), Bytes::new());
    match timeout(ANSWER, request).await {
        Ok(Ok(answer)) => Ok(Some(decode(&answer.payload)?)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "no coordinator answered");
            Ok(None)
        }
        Err(_) => Ok(None),
    }
}

/// What the workers themselves say.
async fn listen(bus: &Bus, subjects: &Subjects) -> Result<Capacity, StatusError> {
    let mut statuses = bus.subscribe(subjects.status_all()).await?;
    let deadline = Deadline::now() + STATUSES;
    let mut glance = Glance::default();
    while let Ok(Some(message)) = timeout_at(deadline, statuses.next()).await {
        if let Ok(status) = decode::<Status>(&message.payload) {
            glance.observe(status, Instant::now());
        }
    }
    Ok(glance.capacity(nobody(subjects.namespace()), unix_ms(), Instant::now()))
}

/// Stands for the coordinator that there is not.
pub(super) fn nobody(namespace: &Name) -> Name {
    Name::sanitized("nobody", namespace)
}
