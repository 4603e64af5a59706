//! The thread that starts all children, and the kernel's promise to kill them.

use std::ffi::OsStr;
use std::io;
use std::sync::{Mutex, PoisonError};

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// Orders that may wait for the thread. A start takes about a millisecond; more callers wait in line.
const WAITING: usize = 8;

struct Order {
    command: Command,
    /// Whose reactor watches the child.
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// The way to the thread, once it has been started.
static ORDERS: Mutex<Option<mpsc::Sender<Order>>> = Mutex::new(None);

/// Variables of ours that no child needs and that may hold secrets: settings, systemd's credentials, a client's key.
fn is_ours(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"TOKENBUS_") || name == b"CREDENTIALS_DIRECTORY" || name == b"OPENAI_API_KEY"
}

/// Starts `command` in a process group of its own, without the variables of this process that may hold secrets, unless
/// the command sets them. The child is killed when it is dropped and when this process dies.
///
/// Linux sends the death signal when the *thread* that started the child ends. A thread of the runtime may end
/// earlier than the process, so one thread starts all children and never ends.
pub(crate) async fn start(mut command: Command) -> io::Result<Child> {
    command.process_group(0).kill_on_drop(true);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_ours(name)) {
        if !command.as_std().get_envs().any(|(set, _)| set == name) {
            command.env_remove(name);
        }
    }
    #[cfg(target_os = "linux")]
    die_with_us(&mut command);
    let (reply, child) = oneshot::channel();
    let order = Order {
        command,
        runtime: Handle::current(),
        reply,
    };
    let gone = || io::Error::other("the thread that starts processes has ended");
    orders()?.send(order).await.map_err(|_| gone())?;
    child.await.map_err(|_| gone())?
}

/// Starts the thread at the first call.
fn orders() -> io::Result<mpsc::Sender<Order>> {
    let mut orders = ORDERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(orders) = orders.as_ref().filter(|orders| !orders.is_closed()) {
        return Ok(orders.clone());
    }
    let (sender, receiver) = mpsc::channel(WAITING);
    std::thread::Builder::new()
        .name("process-starter".to_owned())
        .spawn(move || follow(receiver))?;
    Ok(orders.insert(sender).clone())
}

fn follow(mut orders: mpsc::Receiver<Order>) {
    while let Some(mut order) = orders.blocking_recv() {
        let _context = order.runtime.enter();
        // If the caller no longer waits, the child is dropped here, which kills it.
        drop(order.reply.send(order.command.spawn()));
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn die_with_us(command: &mut Command) {
    let us = nix::unistd::getpid();
    let tie = move || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        // If we died between fork and prctl, the signal never comes.
        if nix::unistd::getppid() != us {
            return Err(io::Error::from_raw_os_error(nix::errno::Errno::ESRCH as i32));
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls (prctl, getppid), both
    // async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(tie) };
}
