//! The loop of `tokenbus top`: snapshots and keys in, a picture out.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokenbus_bus::clock::unix_ms;
use tokenbus_bus::{Bus, BusError, Subscription};
use tokenbus_coordinator::Glance;
use tokenbus_protocol::{Capacity, CoordinatorBeat, Name, Status, Subjects, decode};
use tokio::time::MissedTickBehavior;

use super::collect::nobody;
use super::limits::{REDRAW, SNAPSHOT_OLD};
use super::screen::{self, Screen};
use super::table::{self, Line, Tone};
use super::view::{Order, SortKey, Source, View};
use crate::{signals, ui};

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Quit,
    Sort(SortKey),
    Reverse,
}

/// The state of `top`.
pub(super) struct Top {
    bus: Bus,
    namespace: Name,
    order: Order,
    snapshots: Subscription,
    statuses: Subscription,
    beats: Subscription,
    /// The newest snapshot, and when it came.
    newest: Option<(Capacity, Instant)>,
    /// What the workers say, for when no snapshot comes.
    glance: Glance,
    coordinators: BTreeMap<Name, (bool, Instant)>,
    started: Instant,
}

/// Where the picture goes.
enum Canvas {
    Terminal(Screen),
    Pipe,
}

impl Top {
    /// Subscribes to all that is shown.
    pub(super) async fn new(bus: Bus, namespace: Name, order: Order) -> Result<Self, BusError> {
        let subjects = Subjects::new(namespace.clone());
        Ok(Self {
            snapshots: bus.subscribe(subjects.capacity()).await?,
            statuses: bus.subscribe(subjects.status_all()).await?,
            beats: bus.subscribe(subjects.coordinator_all()).await?,
            bus,
            namespace,
            order,
            newest: None,
            glance: Glance::default(),
            coordinators: BTreeMap::new(),
            started: Instant::now(),
        })
    }

    /// Runs until it is told to end.
    pub(super) async fn run(mut self) -> io::Result<()> {
        let stop = signals::shutdown()?;
        let (mut canvas, mut keys) = canvas()?;
        let mut redraw = tokio::time::interval(REDRAW);
        redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let draw = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                snapshot = self.snapshots.next() => match snapshot {
                    Some(message) => self.snapshot(&message.payload) && canvas.is_live(),
                    None => return Ok(()),
                },
                Some(message) = self.statuses.next() => {
                    self.status(&message.payload);
                    false
                }
                Some(message) = self.beats.next() => {
                    self.beat(&message.payload);
                    false
                }
                _ = redraw.tick() => true,
                Some(event) = keys.next() => match self.key(&event?) {
                    Some(Action::Quit) => return Ok(()),
                    act => act.is_some() || canvas.is_live(),
                },
            };
            if draw {
                self.draw(&mut canvas)?;
            }
        }
    }

    fn snapshot(&mut self, payload: &[u8]) -> bool {
        let decoded = decode::<Capacity>(payload);
        if let Ok(capacity) = decoded {
            self.newest = Some((capacity, Instant::now()));
            return true;
        }
        false
    }

    fn status(&mut self, payload: &[u8]) {
        if let Ok(status) = decode::<Status>(payload) {
            self.glance.observe(status, Instant::now());
        }
    }

    fn beat(&mut self, payload: &[u8]) {
        if let Ok(beat) = decode::<CoordinatorBeat>(payload) {
            self.coordinators
                .insert(beat.coordinator, (beat.leading, Instant::now()));
        }
        self.coordinators.retain(|_, (_, heard)| heard.elapsed() < SNAPSHOT_OLD);
    }

    fn key(&mut self, event: &Event) -> Option<Action> {
        let Event::Key(key) = event else { return None };
        let action = action(key)?;
        match action {
            Action::Sort(key) => self.order = Order { key, reversed: false },
            Action::Reverse => self.order.reversed = !self.order.reversed,
            Action::Quit => {}
        }
        Some(action)
    }

    /// The view at `now`: the newest snapshot, or what the workers say where that is too old;
    /// nothing before the first is due.
    fn view(&mut self, connected: bool, now: Instant) -> Option<View> {
        let from_workers = self.glance.capacity(nobody(&self.namespace), unix_ms(), now);
        let (source, mut capacity) = match &self.newest {
            // Cut off from NATS nobody is heard, and the last snapshot is the best there is.
            Some((capacity, came)) if !connected || now.saturating_duration_since(*came) < SNAPSHOT_OLD => {
                let mut capacity = capacity.clone();
                let since = u64::try_from(now.saturating_duration_since(*came).as_millis()).unwrap_or(u64::MAX);
                for worker in &mut capacity.workers {
                    worker.age_ms = worker.age_ms.saturating_add(since);
                }
                (Source::Coordinator, capacity)
            }
            // A snapshot is due within a second of the start.
            None if now.saturating_duration_since(self.started) < SNAPSHOT_OLD / 2 => return None,
            Some(_) | None => (Source::Workers, from_workers),
        };
        self.order.sort(&mut capacity);
        let live = |(id, (leading, heard)): (&Name, &(bool, Instant))| {
            (now.saturating_duration_since(*heard) < SNAPSHOT_OLD).then(|| (id.clone(), *leading))
        };
        let coordinators = self.coordinators.iter().filter_map(live).collect();
        Some(View {
            namespace: self.namespace.clone(),
            source,
            coordinators,
            capacity,
        })
    }

    fn draw(&mut self, canvas: &mut Canvas) -> io::Result<()> {
        let link = self.bus.link().borrow().clone();
        let view = self.view(link.connected, Instant::now());
        let mut lines = match &view {
            Some(view) => table::lines(view, canvas.width()),
            None => vec![Line::new(
                Tone::Plain,
                format!("cluster {}: waiting for a snapshot", self.namespace),
            )],
        };
        if !link.connected {
            let away = format!("NATS is away, what follows is old: {}", link.reason);
            lines.insert(0, Line::new(Tone::Alarm, away));
        }
        match canvas {
            Canvas::Terminal(screen) => screen.draw(&lines, &footer(self.order)),
            Canvas::Pipe if view.is_some() => ui::println(table::plain(&lines) + "\n"),
            Canvas::Pipe => Ok(()),
        }
    }
}

impl Canvas {
    /// How many columns there are.
    fn width(&self) -> usize {
        match self {
            Self::Terminal(_) => Screen::width(),
            Self::Pipe => usize::MAX,
        }
    }

    /// Whether each snapshot is drawn, rather than one a second.
    fn is_live(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }
}

/// The terminal with its keys, or the pipe without any.
fn canvas() -> io::Result<(Canvas, BoxStream<'static, io::Result<Event>>)> {
    if screen::is_terminal() {
        let screen = Screen::take()?;
        return Ok((Canvas::Terminal(screen), EventStream::new().boxed()));
    }
    Ok((Canvas::Pipe, stream::pending().boxed()))
}

fn action(key: &KeyEvent) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Char('c' | 'd') if control => Action::Quit,
        _ if control => return None,
        KeyCode::Char('q') | KeyCode::Esc => Action::Quit,
        KeyCode::Char('n') => Action::Sort(SortKey::Name),
        KeyCode::Char('a') => Action::Sort(SortKey::Active),
        KeyCode::Char('u') => Action::Sort(SortKey::Queued),
        KeyCode::Char('f') => Action::Sort(SortKey::Free),
        KeyCode::Char('t') => Action::Sort(SortKey::Tokens),
        KeyCode::Char('l') => Action::Sort(SortKey::Latency),
        KeyCode::Char('r') => Action::Reverse,
        _ => return None,
    })
}

fn footer(order: Order) -> String {
    let by = match order.key {
        SortKey::Name => "name",
        SortKey::Active => "active",
        SortKey::Queued => "queued",
        SortKey::Free => "free",
        SortKey::Tokens => "tokens/s",
        SortKey::Latency => "latency",
    };
    let way = if order.reversed { ", reversed" } else { "" };
    format!(" by {by}{way}   n name  a active  u queued  f free  t tokens/s  l latency  r reverse  q quit ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_quit_sort_and_reverse() {
        let press = |code, modifiers| action(&KeyEvent::new(code, modifiers));
        let plain = KeyModifiers::NONE;
        assert_eq!(press(KeyCode::Char('q'), plain), Some(Action::Quit));
        assert_eq!(press(KeyCode::Esc, plain), Some(Action::Quit));
        assert_eq!(press(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Action::Quit));
        assert_eq!(press(KeyCode::Char('c'), plain), None);
        assert_eq!(press(KeyCode::Char('t'), plain), Some(Action::Sort(SortKey::Tokens)));
        assert_eq!(press(KeyCode::Char('t'), KeyModifiers::CONTROL), None);
        assert_eq!(press(KeyCode::Char('r'), plain), Some(Action::Reverse));
        let mut released = KeyEvent::new(KeyCode::Char('q'), plain);
        released.kind = KeyEventKind::Release;
        assert_eq!(action(&released), None);
    }

    #[test]
    fn the_footer_names_the_order() {
        let order = Order {
            key: SortKey::Tokens,
            reversed: true,
        };
        assert!(footer(order).contains("by tokens/s, reversed"));
    }
}
