"""Whether the machine was quiet: CPU time that somebody else took while a measurement ran."""

import os
import resource
import time

from .processes import family

TICK = os.sysconf("SC_CLK_TCK")
# Above this share of the machine the figures are marked: other load changes caches, clocks and batching.
NOTICED = 0.03


class Watch:
    """Samples before a measurement; `shares` tells what others took since, as shares of the machine."""

    def __init__(self, processes):
        self.processes = processes
        self.start = time.monotonic()
        self.machine = machine()
        self.own = self.used()

    def used(self):
        """CPU seconds of all that was started, of children that have ended, and of this process."""
        running = sum(cpu(pid) for _, child, _ in self.processes.children for pid in family(child.pid))
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return running + ended.ru_utime + ended.ru_stime + time.process_time()

    def shares(self):
        """What other processes took, and what the hypervisor did."""
        busy, stolen = (after - before for before, after in zip(self.machine, machine()))
        room = (time.monotonic() - self.start) * os.cpu_count()
        return {"others": max(0.0, busy - (self.used() - self.own)) / room, "stolen": stolen / room}


def machine():
    """Seconds that all processors were busy with this machine's work, and that the hypervisor took, since boot."""
    with open("/proc/stat", encoding="utf-8") as stat:
        user, nice, system, _idle, _wait, irq, softirq, steal = (int(n) / TICK for n in stat.readline().split()[1:9])
    return user + nice + system + irq + softirq, steal


def cpu(pid):
    """CPU seconds of a process so far; 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def remark(shares):
    """A few words where it was not quiet."""
    loud = {name: share for name, share in shares.items() if share > NOTICED}
    return ", ".join(f"{name} {share:.0%}" for name, share in loud.items())
