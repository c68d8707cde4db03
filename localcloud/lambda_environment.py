"""One Lambda execution environment: the deployed zip under AWS's own runtime client.

The client asks a local Runtime API for events and posts its answers there; this side
notices answers, init errors, timeouts and dead processes alike.
"""

import contextlib
import io
import json
import queue
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from concurrent.futures import Future
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self

import psutil
from moto.awslambda.models import LambdaFunction

from localcloud.aws import EmulatedAws
from localcloud.processes import Supervisor, end_tree

INIT_SECONDS = 10.0  # AWS's own limit; what is slower gets the function's timeout on top of it
ENVIRONMENT_MARKER = "PREFECT_SPOT_LAMBDA_ENVIRONMENT"
_unzipping = threading.Lock()

Status = Literal["ok", "error", "timeout", "died"]


@dataclass(frozen=True)
class FunctionConfig:
    """What an environment depends on: when it changes, a new environment is needed."""

    name: str
    arn: str
    handler: str
    timeout_seconds: float
    memory_mib: int
    environment: tuple[tuple[str, str], ...]
    code_sha256: str
    code: bytes = field(compare=False, repr=False)

    @classmethod
    def of(cls, function: LambdaFunction) -> Self:
        """Take the configuration from a function as moto holds it."""
        return cls(
            name=function.function_name,
            arn=function.function_arn,
            handler=str(function.handler),
            timeout_seconds=float(function.timeout),
            memory_mib=int(function.memory_size),
            environment=tuple(sorted(function.environment_vars.items())),
            code_sha256=function.code_sha_256,
            code=function.code_bytes,
        )


@dataclass(frozen=True)
class Outcome:
    """How one invocation went; `seconds` is the handler's time, without init."""

    status: Status
    seconds: float
    logs: list[str]
    answer: Any = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Work:
    request_id: str
    event: bytes
    deadline_ms: int


@dataclass(frozen=True)
class _Message:
    """What the runtime client posted, or what its silence or its process's end means."""

    kind: Status | Literal["ready"]
    content: Any = None

    @classmethod
    def failure(cls, kind: Status, error_type: str, text: str) -> Self:
        return cls(kind, {"errorType": error_type, "errorMessage": text})


class ExecutionEnvironment:
    """One process that serves one invocation at a time, warm until it fails or `end()`."""

    def __init__(
        self,
        supervisor: Supervisor,
        aws: EmulatedAws,
        runtime_python: Path,
        config: FunctionConfig,
    ) -> None:
        self.config = config
        self._id = uuid.uuid4().hex
        self._is_ready = False
        self._folder = supervisor.folder / "lambda" / config.name
        self._log = self._folder / f"{self._id}.log"
        self._log_read = 0  # bytes
        self._api = _RuntimeApi(config.arn)
        self._process = self._start(supervisor, aws, runtime_python)
        self._api.client_pid.set_result(self._process.pid)
        threading.Thread(target=self._notice_death, daemon=True).start()

    @property
    def pid(self) -> int:
        """The process that runs the function."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether another invocation may come here."""
        return self._process.poll() is None

    def run(self, request_id: str, event: bytes) -> Outcome:
        """Run the handler once; an environment that fails otherwise than by its error is ended."""
        limit = self.config.timeout_seconds
        message = _Message("ready") if self._is_ready else self._await(INIT_SECONDS + limit)
        started = time.monotonic()
        if is_ready := message.kind == "ready":
            self._is_ready = True
            self._api.work.put(_Work(request_id, event, int((time.time() + limit) * 1000)))
            message = self._await(limit)
        assert message.kind != "ready"
        if message.kind not in ("ok", "error") or not is_ready:
            self.end()
        answer, error = (message.content, None) if message.kind == "ok" else (None, message.content)
        seconds = time.monotonic() - started
        return Outcome(message.kind, seconds, self._new_log_lines(), answer, error)

    def end(self) -> None:
        """Kill the process and all it started, and close the Runtime API."""
        end_tree(self._process, (ENVIRONMENT_MARKER, self._id))
        self._api.close()

    def _await(self, seconds: float) -> _Message:
        try:
            return self._api.messages.get(timeout=seconds)
        except queue.Empty:
            text = f"Task timed out after {seconds:.2f} seconds"
            return _Message.failure("timeout", "Sandbox.Timedout", text)

    def _start(
        self, supervisor: Supervisor, aws: EmulatedAws, runtime_python: Path
    ) -> subprocess.Popen[bytes]:
        config, task_root = self.config, _unzip(self.config, self._folder)
        scratch = self._folder / f"tmp-{self._id}"
        scratch.mkdir()
        version = "$LATEST"
        return supervisor.spawn(
            [str(runtime_python), "-m", "awslambdaric", config.handler],
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "TZ": ":UTC",
                "TMPDIR": str(scratch),
                "PYTHONNOUSERSITE": "1",
                **aws.environment(),
                "AWS_ACCESS_KEY_ID": config.name,  # by this, `EmulatedAws.calls` names the caller
                **dict(config.environment),
                "PYTHONPATH": str(task_root),
                "LAMBDA_TASK_ROOT": str(task_root),
                "_HANDLER": config.handler,
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.server_port}",
                "AWS_LAMBDA_FUNCTION_NAME": config.name,
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.memory_mib),
                "AWS_LAMBDA_FUNCTION_VERSION": version,
                "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{config.name}",
                "AWS_LAMBDA_LOG_STREAM_NAME": f"[{version}]{self._id}",
                "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            },
            cwd=task_root,
            log=self._log,
            extra_marker={ENVIRONMENT_MARKER: self._id},
        )

    def _notice_death(self) -> None:
        text = f"Runtime exited with exit code {self._process.wait()}"
        self._api.messages.put(_Message.failure("died", "Runtime.ExitError", text))

    def _new_log_lines(self) -> list[str]:
        """What was printed since the last look; the client prints before it answers."""
        with self._log.open("rb") as log:
            log.seek(self._log_read)
            printed = log.read()
        self._log_read += len(printed)
        return printed.decode(errors="replace").splitlines()


class _RuntimeApi(ThreadingHTTPServer):
    """The Runtime API of one environment, on a port of its own: the client knows no paths.

    Nor a password: so only the environment's own process is answered. An event holds the
    environment of flows.
    """

    daemon_threads = True
    START_SECONDS = 5.0

    def __init__(self, function_arn: str) -> None:
        super().__init__(("127.0.0.1", 0), _RuntimeApiHandler)
        self.function_arn = function_arn
        self.work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self.messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self.was_asked = False
        self.client_pid: Future[int] = Future()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def verify_request(self, _request: Any, client_address: Any) -> bool:
        """Whether the other end of the connection is the environment's own process."""
        with contextlib.suppress(psutil.Error, TimeoutError):
            client = psutil.Process(self.client_pid.result(self.START_SECONDS))
            ours = client.net_connections("tcp4")
            # Its other connections' ports are no proof: to us, another user can have the same.
            return (client_address, self.server_address) in [(c.laddr, c.raddr) for c in ours]
        return False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report a failure, except of a process that was ended during a request."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def close(self) -> None:
        """End a waiting request for the next event, and stop listening."""
        self.work.put(None)
        self.shutdown()
        self.server_close()


class _RuntimeApiHandler(BaseHTTPRequestHandler):
    server: _RuntimeApi
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each warm invocation waits 40 ms for an ACK

    def do_GET(self) -> None:
        """Answer `/invocation/next`, as soon as there is an event."""
        if not self.server.was_asked:
            self.server.was_asked = True
            self.server.messages.put(_Message("ready"))
        work = self.server.work.get()
        if work is None:
            self.close_connection = True
            return
        headers = {
            "Lambda-Runtime-Aws-Request-Id": work.request_id,
            "Lambda-Runtime-Deadline-Ms": str(work.deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": self.server.function_arn,
        }
        self._answer(200, work.event, headers)

    def do_POST(self) -> None:
        """Take `/init/error`, `/invocation/<id>/error` or `/invocation/<id>/response`."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(202, b'{"status":"OK"}', {})
        kind: Status = "ok" if self.path.endswith("/response") else "error"
        self.server.messages.put(_Message(kind, json.loads(body)))

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        # Without a content type the client segfaults.
        for name, value in {**headers, "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        with contextlib.suppress(ConnectionError):  # the process has just been ended
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def _unzip(config: FunctionConfig, folder: Path) -> Path:
    """Unzip the code once for all environments that share it."""
    task_root = folder / f"code-{uuid.uuid5(uuid.NAMESPACE_OID, config.code_sha256).hex}"
    with _unzipping:
        if not task_root.exists():
            zipfile.ZipFile(io.BytesIO(config.code)).extractall(task_root)  # our own zip
    return task_root
