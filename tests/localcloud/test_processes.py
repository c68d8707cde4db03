"""Nothing the embedded cloud started outlives it, however it ends."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from localcloud.processes import Supervisor
from tests.localcloud.cloud import is_alive, wait_until

SLEEPER = "import time; time.sleep(600)"
# A child that starts a grandchild in a session of its own, prints its pid, and ends.
ORPHAN_MAKER = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}], start_new_session=True)
print(child.pid, flush=True)
"""
OWNER = f"""
import os, sys, time
from pathlib import Path
from localcloud.processes import Supervisor
with Supervisor.open(Path(sys.argv[1])) as supervisor:
    for name, code in (("sleeper", {SLEEPER!r}), ("maker", {ORPHAN_MAKER!r})):
        process = supervisor.spawn([sys.executable, "-c", code], env=dict(os.environ),
                                  cwd=supervisor.folder, log=supervisor.folder / name)
    sleeper = process.pid
    while not (text := (supervisor.folder / "maker").read_text()):
        time.sleep(0.02)
    print(supervisor.folder, sleeper, int(text), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["sigterm", "sigkill"])
def test_reaper_ends_everything_when_the_owner_is_ended(tmp_path: Path, end: int) -> None:
    """Ctrl-C is tried on the demo, in `tests/system`."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    folder, *pids = owner.stdout.readline().split()
    assert is_alive(int(pids[-1]))
    assert Path(folder).exists()
    owner.send_signal(end)
    owner.wait()
    owner.stdout.close()
    wait_until(lambda: not any(is_alive(int(pid)) for pid in pids))
    wait_until(lambda: not Path(folder).exists())


def test_an_end_by_hand_does_not_hide_what_is_left(tmp_path: Path) -> None:
    def end_by_hand() -> None:
        before = set(psutil.Process().children())
        with Supervisor.open(tmp_path):
            for child in set(psutil.Process().children()) - before:
                if "localcloud.processes" in child.cmdline():
                    child.kill()
            sys.exit("by hand")

    with pytest.raises(RuntimeError, match="outlived"):
        end_by_hand()
