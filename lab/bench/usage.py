"""What processes took of the machine, from /proc: CPU seconds, and peak memory."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

KIB_PER_MIB = 1024


def children_that_run(word: str) -> Sequence[psutil.Process]:
    """Return the processes that were started here, and have this word in their command."""
    return [p for p in psutil.Process().children() if word in p.cmdline()]


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """Return user and system time so far, of all of them together."""
    times = [process.cpu_times() for process in processes]
    return sum(time.user + time.system for time in times)


def peak_rss_mib(process: psutil.Process) -> float:
    """Return the most memory that the process ever had (VmHWM), in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    [kib] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kib) / KIB_PER_MIB
