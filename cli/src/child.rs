//! Child processes that cannot outlive us: their own process group, and on Linux a death signal.

use tokio::process::Command;

/// Prepares `command` so that the child does not get the terminal's Ctrl-C (we stop it in order)
/// and, on Linux, is killed by the kernel when this process dies, even of SIGKILL.
///
/// The kernel ties the signal to the *thread* that spawns the child: call `spawn` from the main
/// thread or from a runtime worker, never from a blocking pool thread, which ends when idle.
pub(crate) fn tie_to_us(command: &mut Command) -> &mut Command {
    command.process_group(0).kill_on_drop(true);
    #[cfg(target_os = "linux")]
    death_signal(command);
    command
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn death_signal(command: &mut Command) {
    let us = nix::unistd::getpid();
    let tie = move || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        // We may have died between fork and prctl; then no signal will ever come.
        if nix::unistd::getppid() != us {
            return Err(std::io::Error::other("the parent is gone"));
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls (prctl, getppid), both
    // async-signal-safe, and allocates nothing on the path that succeeds.
    unsafe { command.pre_exec(tie) };
}
