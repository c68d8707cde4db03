"""Where the embedded cloud's processes begin, and the sure end of all of them.

Every process gets a marker in its environment; a *reaper* waits on a pipe to us and, once the
pipe closes for whatever reason, kills all that carry the marker and removes the folder.
"""

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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

MARKER = "PREFECT_SPOT_LOCALCLOUD"
REAPING_SECONDS = 30.0
_PAUSE_SECONDS = 0.03


@dataclass(frozen=True)
class Supervisor:
    """A temporary folder and the processes living in it; both end with the `with` block.

    No other user gets into the folder. A process of another user has one of its own, `beside` it.

    Price: a marker is only seen where a process's environment may be read, which on macOS
    excludes Apple's own binaries (/bin/sleep); their Python parents are seen.
    """

    folder: Path
    _mark: str

    @classmethod
    @contextlib.contextmanager
    def open(cls, root: Path | None = None) -> Iterator[Self]:
        """Make the folder (inside `root`, else where temporary files go) and start the reaper.

        Raises RuntimeError at the end when processes or files outlive the reaper's patience.
        """
        folder = Path(tempfile.mkdtemp(prefix="prefect-spot-", dir=root)).resolve()
        mark = str(uuid.uuid4())
        package = Path(__file__).resolve().parent
        reaper = subprocess.Popen(
            [sys.executable, "-m", f"{package.name}.{Path(__file__).stem}", mark, str(folder)],
            env={**os.environ, "PYTHONPATH": str(package.parent)},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal is for us, not for the reaper
        )
        try:
            yield cls(folder, mark)
        finally:
            assert reaper.stdin is not None
            reaper.stdin.close()
            if reaper.wait():  # whatever ended the rest: Ctrl-C, too
                raise RuntimeError(
                    f"processes or files of {folder} outlived {REAPING_SECONDS:.0f} s of reaping: "
                    f"look for {MARKER}={mark} in their environment"
                )

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
                env={**env, **(extra_marker or {}), MARKER: self._mark},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
            )


def beside(folder: Path) -> Path:
    """Return where in place of `folder`, in a supervisor's, another user's process may live.

    It goes with the supervisor's.
    """
    return folder.parent.with_name(f"{folder.parent.name}-{folder.name}")


def end_tree(process: subprocess.Popen[bytes], marker: tuple[str, str]) -> None:
    """SIGKILL a process and all others that carry `marker`, until none is left.

    Raises TimeoutError when some are still there after `REAPING_SECONDS`.
    """
    process.kill()
    if not _kill_until_gone(marker):
        raise TimeoutError(f"processes of {process} survive SIGKILL: {_carriers(marker)}")
    process.wait()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now; use it at once.

    What is to be trusted there has to be asked for with `listens`: another user may be faster.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether that very process serves the port of 127.0.0.1, and not a stranger's."""
    with contextlib.suppress(psutil.Error):
        connections = psutil.Process(process.pid).net_connections("tcp4")
        own = [each.laddr for each in connections if each.status == psutil.CONN_LISTEN]
        return ("127.0.0.1", port) in own
    return False


def _kill_until_gone(marker: tuple[str, str]) -> bool:
    """Kill in rounds; two quiet ones in a row, as one may miss a process between fork and exec."""
    deadline = time.monotonic() + REAPING_SECONDS
    quiet_rounds = 0
    while quiet_rounds < 2:
        found = _carriers(marker)
        quiet_rounds = 0 if found else quiet_rounds + 1
        for process in found:
            with contextlib.suppress(psutil.Error):  # gone by itself
                process.kill()
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
    return True


def _carriers(marker: tuple[str, str]) -> list[psutil.Process]:
    """All live processes but this one that have the marker in their environment."""
    name, value = marker
    carriers = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # gone, or another user's
            if (
                process.environ().get(name) == value
                and process.pid != os.getpid()
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                carriers.append(process)
    return carriers


def _reap(value: str, folder: Path) -> bool:
    """Wait for the owner's end, then kill and remove all. Return whether all is gone."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdin.buffer.read()  # returns when the owner closes the pipe, or is no more
    gone = _kill_until_gone((MARKER, value))
    for each in (folder, *folder.parent.glob(f"{folder.name}-*")):
        shutil.rmtree(each, ignore_errors=True)
    return gone and not folder.exists()


if __name__ == "__main__":
    sys.exit(0 if _reap(sys.argv[1], Path(sys.argv[2])) else 1)
