"""A real Prefect server with its UI, on 127.0.0.1, living in a folder of its own.

The demo, the end-to-end tests and the contract suite all start theirs here; which Prefect it is,
is decided by the Python that is handed in.
"""

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx

from localcloud.postgres import Spawn, end, tail
from localcloud.processes import free_port, listens

START_SECONDS = 120.0
KEEP_ALIVE_SECONDS = 120
"""Longer than any client keeps an idle connection (httpx 5 s, Prefect's own 25 s).

The server's own default is 5 s too: it then hangs up just as a request is sent, and a POST is lost.
"""


class PrefectServer:
    """A Prefect server; `database` is "sqlite" or a postgresql+asyncpg URL.

    `auth_string` ("user:password") switches basic auth on, `csrf` CSRF protection. The server sees
    no setting but ours: neither the host's PREFECT_* nor a profile, `.env` or `prefect.toml`.
    """

    def __init__(
        self,
        folder: Path,
        spawn: Spawn,
        *,
        python: Path | None = None,
        database: str = "sqlite",
        auth_string: str | None = None,
        csrf: bool = False,
    ) -> None:
        self._folder = folder
        self._spawn = spawn
        self._python = (python or Path(sys.executable)).absolute()  # resolved, it left its venv
        self._database = database
        self._auth_string = auth_string
        self._csrf = csrf
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "prefect-server.log"
        self._port = free_port()
        self.ui_url = f"http://127.0.0.1:{self._port}"
        self.api_url = f"{self.ui_url}/api"
        self.version = ""

    def __enter__(self) -> Self:
        """Start it and wait until it answers.

        Raises RuntimeError, with the end of its log, when it ends or is silent for two minutes.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [str(self._python), "-m", "localcloud.guarded_prefect", "server", "start"]
        self._process = self._spawn(
            [*command, "--host", "127.0.0.1", "--port", str(self._port)],
            env=self._environment(),
            cwd=self._folder,
            log=self.log,
        )
        try:
            self.version = self._wait(self._process)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            end(self._process, signal.SIGTERM)

    def check(self) -> None:
        """Raise RuntimeError once it has ended."""
        if self._process is not None and (code := self._process.poll()) is not None:
            raise RuntimeError(f"the Prefect server has ended, with exit code {code}")

    def _environment(self) -> dict[str, str]:
        home = self._folder / "home"
        sqlite = f"sqlite+aiosqlite:///{home / 'prefect.db'}"
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._folder),
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_MEMO_STORE_PATH": str(home / "memo_store.toml"),
            "PREFECT_API_DATABASE_CONNECTION_URL": (
                sqlite if self._database == "sqlite" else self._database
            ),
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(self._port),
            "PREFECT_SERVER_API_KEEPALIVE_TIMEOUT": str(KEEP_ALIVE_SECONDS),
            "PREFECT_UI_API_URL": self.api_url,
            # Else the UI's files are copied into the installed package, by all servers at once.
            "PREFECT_UI_STATIC_DIRECTORY": str(self._folder / "ui"),
            # The UI's own: by default, every page may read the answers. (The long name came later.)
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": (f"{self.ui_url},http://localhost:{self._port}"),
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": str(self._csrf).lower(),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_CLI_PROMPT": "false",
        }
        if self._auth_string is not None:
            environment["PREFECT_SERVER_API_AUTH_STRING"] = self._auth_string
        return environment

    def _wait(self, process: subprocess.Popen[bytes]) -> str:
        """Wait until it answers, and return its version."""
        deadline = time.monotonic() + START_SECONDS
        auth = httpx.BasicAuth(*self._auth_string.split(":", 1)) if self._auth_string else None
        with httpx.Client(base_url=self.api_url, auth=auth, timeout=5, trust_env=False) as client:
            while process.poll() is None and time.monotonic() < deadline:
                if listens(process, self._port):  # a stranger in its place gets no password
                    with suppress(httpx.HTTPError):
                        client.get("/health").raise_for_status()
                        return str(client.get("/admin/version").raise_for_status().json())
                time.sleep(0.25)
        raise RuntimeError(f"the Prefect server does not start; its log ends:\n{tail(self.log)}")
