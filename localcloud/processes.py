"""Where the embedded cloud's processes begin, and the sure end of all of them.

Every process gets a marker in its environment; a *reaper* waits on a pipe to us and, once the
pipe closes for whatever reason, kills all that carry the marker and removes the folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

MARKER = "PREFECT_SPOT_LOCALCLOUD"
REAPING_SECONDS = 30.0
_PAUSE_SECONDS = 0.03


class Household:
    """A temporary folder and the processes living in it; both end with the `with` block.

    Price: a marker is only seen where a process's environment may be read, which on macOS
    excludes Apple's own binaries (/bin/sleep); their Python parents are seen.
    """

    def __init__(self, folder: Path, marker: tuple[str, str], reaper: subprocess.Popen[bytes]):
        self.folder = folder
        self.marker = marker
        self._reaper = reaper

    @classmethod
    def open(cls, root: Path | None = None) -> Household:
        """Make the folder (inside `root`, else where temporary files go) and start the reaper."""
        folder = Path(tempfile.mkdtemp(prefix="prefect-spot-", dir=root)).resolve()
        folder.chmod(0o711)  # a server spawned as another user (PostgreSQL) must pass through
        value = str(uuid.uuid4())
        package = Path(__file__).resolve().parent
        reaper = subprocess.Popen(
            [sys.executable, "-m", f"{package.name}.{Path(__file__).stem}", value, str(folder)],
            env={**os.environ, "PYTHONPATH": str(package.parent)},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal is for us, not for the reaper
        )
        return cls(folder, (MARKER, value), reaper)

    def __enter__(self) -> Household:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        left_over = self.close() != 0
        if left_over and error is None:
            raise RuntimeError(
                f"processes or files of {self.folder} outlived {REAPING_SECONDS:.0f} s of reaping: "
                f"look for {'='.join(self.marker)} in their environment"
            )

    def close(self) -> int:
        """End all processes, remove the folder, and return the reaper's exit code (0: all gone)."""
        assert self._reaper.stdin is not None
        self._reaper.stdin.close()
        return self._reaper.wait()

    def spawn(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        extra_marker: Mapping[str, str] | None = None,
        user: str | int | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own, with exactly `env` and the markers.

        Its output is appended to `log`. Raises OSError when the command cannot be started.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            return subprocess.Popen(
                list(command),
                env={**env, **(extra_marker or {}), self.marker[0]: self.marker[1]},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
            )


def end_tree(process: subprocess.Popen[bytes], marker: tuple[str, str]) -> None:
    """SIGKILL a process, its descendants, and whoever carries `marker`, until none is left.

    The marker finds descendants that made a session of their own and lost their parent.
    Raises TimeoutError when some are still there after `REAPING_SECONDS`.
    """
    root = None
    if process.poll() is None:  # once waited for, its pid may belong to a stranger
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(process.pid)

    def members() -> set[psutil.Process]:
        return {*_descendants(root), *_carriers(marker)}

    if not _kill_until_gone(members):
        raise TimeoutError(f"processes of {process} survive SIGKILL: {members()}")
    process.wait()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now; use it before somebody else does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _kill_until_gone(members: Callable[[], Iterable[psutil.Process]]) -> bool:
    """Kill in rounds; two quiet ones in a row, as one may miss a process between fork and exec."""
    deadline = time.monotonic() + REAPING_SECONDS
    quiet_rounds = 0
    while quiet_rounds < 2:
        found = list(members())
        quiet_rounds = 0 if found else quiet_rounds + 1
        for process in found:
            with contextlib.suppress(psutil.Error):  # gone by itself
                process.kill()
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
    return True


def _descendants(root: psutil.Process | None) -> list[psutil.Process]:
    if root is None:
        return []
    try:
        return [p for p in (root, *root.children(recursive=True)) if _is_alive(p)]
    except psutil.NoSuchProcess:
        return []


def _carriers(marker: tuple[str, str]) -> list[psutil.Process]:
    name, value = marker
    carriers = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(name) == value
        except (psutil.Error, OSError):
            continue  # gone, a zombie, or not ours to look at
        if marked and process.pid != os.getpid() and _is_alive(process):
            carriers.append(process)
    return carriers


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _reap(value: str, folder: Path) -> bool:
    """Wait for the owner's end, then clear up. Return whether all is gone."""
    for nuisance in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(nuisance, signal.SIG_IGN)
    sys.stdin.buffer.read()  # returns when the owner closes the pipe, or is no more
    gone = _kill_until_gone(lambda: _carriers((MARKER, value)))
    shutil.rmtree(folder, ignore_errors=True)
    return gone and not folder.exists()


if __name__ == "__main__":
    sys.exit(0 if _reap(sys.argv[1], Path(sys.argv[2])) else 1)
