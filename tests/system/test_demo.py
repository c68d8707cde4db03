"""`make demo` ended by Ctrl-C: nothing of it stays behind. See `tests/ui` for its good end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from localcloud.demo import ENDED
from localcloud.deployment import PROJECT


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo, started as `make demo` starts it; its temporary folder is ours to look into."""
    process = subprocess.Popen(
        [sys.executable, "-m", "localcloud.demo"],
        cwd=PROJECT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    yield process
    process.kill()
    process.wait()


def test_ctrl_c_ends_everything(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        if "deploying the example flow" in line:
            break
    time.sleep(2)
    processes = psutil.Process(demo.pid).children(recursive=True)
    assert len(processes) >= 3, "a server, a worker and the reaper were to be seen"
    demo.send_signal(signal.SIGINT)
    rest, _ = demo.communicate(timeout=120)
    assert demo.returncode == 130, rest
    assert "ending everything (a few seconds)" in rest.partition(ENDED)[0]
    assert rest.endswith(f"{ENDED}\n")
    assert not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert not list(tmp_path.glob("prefect-spot-*"))
