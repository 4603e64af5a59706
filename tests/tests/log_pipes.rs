//! A role whose log nobody reads, or nobody can read any more, serves and stops as any other.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokenbus_protocol::{Control, Name, Ping, Subjects};
use tokenbus_tests::limits::STOP;
use tokenbus_tests::wait::within_time;
use tokenbus_tests::{Client, NatsServer, binary, eventually, port};
use tokio::process::Child;

/// A role whose standard error and output are one pipe.
struct Piped {
    process: Child,
    /// Where it says that it is ready; none for a worker.
    page: Option<Client>,
}

impl Piped {
    fn start(role: &str, nats: &NatsServer, pipe: &PipeWriter) -> Self {
        let mut command = binary::command();
        let mut page = None;
        command.args([role, "--nats", &nats.url()]);
        if role == "worker" {
            command.args(["--engine", "sim", "--model", "m", "--id", "w1"]);
        } else {
            let address = format!("127.0.0.1:{}", port::lasting());
            page = Some(Client::new(address.parse().unwrap()));
            command.args(["--listen", &address]);
        }
        if role == "gateway" {
            command.args(["--drain-delay", "0s"]);
        }
        command
            .stdin(std::process::Stdio::null())
            .stdout(pipe.try_clone().unwrap())
            .stderr(pipe.try_clone().unwrap())
            .kill_on_drop(true);
        Self {
            process: command.spawn().unwrap(),
            page,
        }
    }

    async fn ready(&self, nats: &NatsServer) {
        let Some(page) = &self.page else {
            let client = nats.client().await;
            let subject = Subjects::new(Name::new("tb").unwrap()).control(&Name::new("w1").unwrap());
            let ping = tokenbus_protocol::encode(&Control::Ping(Ping {})).unwrap();
            return eventually("the worker's pong", async || {
                client.request(subject.clone(), ping.clone().into()).await.map(drop)
            })
            .await;
        };
        eventually("readiness", async || match page.try_get("/readyz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// SIGTERM, and an end in good order.
    async fn stops(mut self, role: &str) {
        let pid = Pid::from_raw(i32::try_from(self.process.id().unwrap()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let status = within_time(STOP, &format!("the end of the {role}"), self.process.wait()).await;
        assert!(status.unwrap().success(), "{role}");
    }
}

/// Fills `pipe` to the last byte.
fn fill(pipe: &mut PipeWriter) {
    let flags = OFlag::from_bits_retain(fcntl(pipe.as_fd(), FcntlArg::F_GETFL).unwrap());
    fcntl(pipe.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
    while pipe.write(&[b'.'; 512]).is_ok() {}
    while pipe.write(b".").is_ok() {}
    fcntl(pipe.as_fd(), FcntlArg::F_SETFL(flags)).unwrap();
}

/// All that is written until nobody can write any more.
fn rest(mut pipe: PipeReader) -> String {
    let mut text = Vec::new();
    pipe.read_to_end(&mut text).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

const ROLES: [&str; 3] = ["gateway", "worker", "coordinator"];

#[tokio::test]
async fn a_role_whose_log_pipe_has_closed_serves_on_and_stops() {
    for role in ROLES {
        let mut nats = NatsServer::start().await;
        let (reader, writer) = std::io::pipe().unwrap();
        let piped = Piped::start(role, &nats, &writer);
        drop(writer);
        let first = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(reader).read_line(&mut line)
        });
        assert!(first.await.unwrap().unwrap() > 0);
        // From here on every line fails; a bus that goes and comes back makes some.
        piped.ready(&nats).await;
        nats.restart().await;
        piped.ready(&nats).await;
        piped.stops(role).await;
        if role == "worker" {
            // It has left the cluster, too: its subject is nobody's.
            let client = nats.client().await;
            let gone = client.request("tb.v1.ctl.w1", "".into()).await.unwrap_err();
            assert_eq!(gone.kind(), async_nats::RequestErrorKind::NoResponders);
        }
    }
}

#[tokio::test]
async fn a_role_whose_log_nobody_reads_serves_and_stops() {
    for role in ROLES {
        let mut nats = NatsServer::start().await;
        let (reader, mut writer) = std::io::pipe().unwrap();
        fill(&mut writer);
        let piped = Piped::start(role, &nats, &writer);
        piped.ready(&nats).await;
        nats.restart().await;
        piped.ready(&nats).await;
        piped.stops(role).await;
        drop(writer);
        // Nothing of it could be written: the reader hung until after the end.
        assert!(rest(reader).bytes().all(|byte| byte == b'.'), "{role}");
    }
}

#[tokio::test]
async fn what_waited_for_a_reader_is_written_when_it_reads_again() {
    let nats = NatsServer::start().await;
    let (reader, mut writer) = std::io::pipe().unwrap();
    fill(&mut writer);
    let piped = Piped::start("worker", &nats, &writer);
    piped.ready(&nats).await;
    drop(writer);
    let read = tokio::task::spawn_blocking(move || rest(reader));
    piped.stops("worker").await;
    let log = read.await.unwrap();
    for line in [
        "worker ready",
        "stopping; a second signal ends it at once",
        "worker stopped",
    ] {
        assert!(log.contains(line), "{line}: {}", log.trim_start_matches('.'));
    }
}
