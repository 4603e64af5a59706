//! CPU time and memory of processes between two moments: the difference of two samples, also per token.

use std::time::Duration;

use super::args::NamedPid;
use super::procfs::{ProcError, Sample, sample};
use super::report::ProcessUse;

/// Samples of the processes of `--pid` at the start of the measurement.
#[derive(Debug)]
pub(crate) struct StartSamples {
    groups: Vec<(String, Vec<(u32, Sample)>)>,
    own: Own,
}

/// The work in that time: tokens received and requests ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    /// Tokens received.
    pub(crate) tokens: u64,
    /// Requests that ended.
    pub(crate) requests: u64,
}

/// The load generator's own CPU time, in user code and in the kernel.
#[derive(Debug, Clone, Copy)]
struct Own(Duration, Duration);

impl StartSamples {
    /// Samples every process, in groups of one name.
    ///
    /// # Errors
    /// [`ProcError`] if one cannot be measured.
    pub(crate) fn take(pids: &[NamedPid]) -> Result<Self, ProcError> {
        let mut groups: Vec<(String, Vec<(u32, Sample)>)> = Vec::new();
        for NamedPid { name, pid } in pids {
            let entry = (*pid, sample(*pid)?);
            match groups.iter_mut().find(|(n, _)| n == name) {
                Some((_, members)) => members.push(entry),
                None => groups.push((name.clone(), vec![entry])),
            }
        }
        Ok(Self { groups, own: own() })
    }

    /// The usage since then: of the processes, and of the load generator itself.
    pub(crate) fn until_now(&self, work: Work) -> (Vec<ProcessUse>, ProcessUse) {
        let after = own();
        let bench = bench_use((self.own, after), work);
        let groups = self.groups.iter();
        let used = groups.map(|(name, members)| {
            let members = members.iter().map(|(pid, before)| (*pid, *before, sample(*pid).ok()));
            group_use(name, members, work)
        });
        (used.collect(), bench)
    }
}

fn own() -> Own {
    use nix::sys::resource::{UsageWho, getrusage};
    let time = |t: nix::sys::time::TimeVal| {
        let micros = i128::from(t.tv_sec()) * 1_000_000 + i128::from(t.tv_usec());
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    };
    // The call fails only for an unknown kind of usage.
    getrusage(UsageWho::RUSAGE_SELF).map_or(Own(Duration::ZERO, Duration::ZERO), |u| {
        Own(time(u.user_time()), time(u.system_time()))
    })
}

fn bench_use((before, after): (Own, Own), work: Work) -> ProcessUse {
    let user = after.0.saturating_sub(before.0);
    let system = after.1.saturating_sub(before.1);
    let memory = sample(std::process::id()).ok();
    let group = Group {
        name: "bench".to_owned(),
        pids: vec![std::process::id()],
        ended: vec![],
    };
    process_use(
        group,
        Some((user, system)),
        memory.map(|m| (m.memory_bytes, m.peak_memory_bytes)),
        work,
    )
}

fn group_use(name: &str, members: impl Iterator<Item = (u32, Sample, Option<Sample>)>, work: Work) -> ProcessUse {
    let (mut pids, mut ended) = (Vec::new(), Vec::new());
    let (mut user, mut system) = (Duration::ZERO, Duration::ZERO);
    let (mut memory, mut peak) = (0, 0);
    for (pid, before, after) in members {
        pids.push(pid);
        match after.filter(|after| after.started == before.started) {
            Some(after) => {
                user += after.user.saturating_sub(before.user);
                system += after.system.saturating_sub(before.system);
                memory += after.memory_bytes;
                peak += after.peak_memory_bytes;
            }
            None => ended.push(pid),
        }
    }
    let group = Group {
        name: name.to_owned(),
        pids,
        ended,
    };
    let whole = group.ended.is_empty();
    process_use(
        group,
        whole.then_some((user, system)),
        whole.then_some((memory, peak)),
        work,
    )
}

/// The processes of one entry of the report.
struct Group {
    name: String,
    pids: Vec<u32>,
    ended: Vec<u32>,
}

fn process_use(group: Group, cpu: Option<(Duration, Duration)>, memory: Option<(u64, u64)>, work: Work) -> ProcessUse {
    let total = cpu.map(|(user, system)| (user + system).as_secs_f64());
    let per = |count: u64| total.filter(|_| count > 0).map(|t| t * 1e6 / count as f64);
    ProcessUse {
        name: group.name,
        pids: group.pids,
        ended_pids: group.ended,
        cpu_user_seconds: cpu.map(|c| c.0.as_secs_f64()),
        cpu_system_seconds: cpu.map(|c| c.1.as_secs_f64()),
        cpu_seconds: total,
        cpu_us_per_token: per(work.tokens),
        cpu_us_per_request: per(work.requests),
        memory_bytes: memory.map(|m| m.0),
        peak_memory_bytes: memory.map(|m| m.1),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn at(user_ms: u64, started: u64) -> Sample {
        Sample {
            user: Duration::from_millis(user_ms),
            system: Duration::from_millis(user_ms / 2),
            started,
            memory_bytes: 10,
            peak_memory_bytes: 20,
        }
    }

    #[test]
    fn adds_up_processes_of_one_name() {
        let members = [(1, at(1000, 5), Some(at(3000, 5))), (2, at(0, 6), Some(at(2000, 6)))];
        let used = group_use(
            "gw",
            members.into_iter(),
            Work {
                tokens: 1_000_000,
                requests: 0,
            },
        );
        assert_eq!((used.cpu_seconds, used.cpu_us_per_token), (Some(6.0), Some(6.0)));
        assert_eq!((used.cpu_us_per_request, used.peak_memory_bytes), (None, Some(40)));
    }

    #[test]
    fn an_ended_process_has_no_figure_even_if_its_id_is_used_again() {
        for after in [None, Some(at(9000, 77))] {
            let used = group_use(
                "gw",
                [(1, at(0, 5), after), (2, at(0, 6), Some(at(10, 6)))].into_iter(),
                Work { tokens: 9, requests: 9 },
            );
            assert_eq!((used.cpu_seconds, used.ended_pids), (None, vec![1]));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn measures_itself() {
        let pids = [NamedPid {
            name: "me".to_owned(),
            pid: std::process::id(),
        }];
        let before = StartSamples::take(&pids).unwrap();
        // So much work, and not so much time: a busy machine gives a process less than it asks for.
        let mut n = 0_u64;
        for _ in 0..40_000_000 {
            n = std::hint::black_box(n.wrapping_mul(31) + 1);
        }
        let (used, bench) = before.until_now(Work {
            tokens: 100,
            requests: 10,
        });
        assert!(bench.cpu_seconds.unwrap() > 0.02, "{bench:?}");
        assert!(
            used[0].cpu_seconds.unwrap() > 0.0 && used[0].peak_memory_bytes.unwrap() > 0,
            "{used:?}"
        );
    }
}
