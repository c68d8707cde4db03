"""MiniStack as a process on 127.0.0.1: an AWS that nobody here wrote, in an environment of its own.

Each of its accounts is empty until somebody calls: the access key is the account's number.
"""

import itertools
import json
import signal
import subprocess
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import boto3
import psutil
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from localcloud.aws import environment_of
from localcloud.deployment import PROJECT
from localcloud.postgres import Spawn, end, tail
from localcloud.processes import free_port, listens

PYTHON: Final = PROJECT / ".venvs" / "ministack" / "bin" / "python"
START_SECONDS: Final = 60
LOOPBACK: Final = ("127.0.0.1", "::1")
_SESSION: Final = boto3.session.Session()  # it reads a service's model once


class MiniStack:
    """One server for all accounts, for as long as the `with` block lasts."""

    def __init__(self, folder: Path, spawn: Spawn) -> None:
        self._folder, self._spawn = folder, spawn
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._accounts = itertools.count(1)
        self.log = folder / "ministack.log"

    def __enter__(self) -> Self:
        """Start it and wait until it answers. Raises RuntimeError, with the end of its log."""
        self._folder.mkdir(parents=True, exist_ok=True)
        environment = {
            "PATH": f"{PYTHON.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._folder),
            "TMPDIR": str(self._folder),
            "S3_DATA_DIR": str(self._folder / "s3"),
            "BIND_HOST": "127.0.0.1",  # else every address of the machine
            "GATEWAY_PORT": str(self._port),
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
            "LAMBDA_EXECUTOR": "local",  # the zip in a process, instead of in Docker
            "DOCKER_HOST": f"unix://{self._folder}/none",
        }
        self._process = self._spawn(
            [str(PYTHON), "-m", "ministack"], env=environment, cwd=self._folder, log=self.log
        )
        try:
            self._wait(self._process)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            end(self._process, signal.SIGTERM)

    @property
    def version(self) -> str:
        """What is installed."""
        code = "import importlib.metadata as m; print(m.version('ministack'))"
        return subprocess.check_output([PYTHON, "-c", code], text=True).strip()

    def account(self) -> "Account":
        """Return an account in which there is nothing yet."""
        return Account(f"http://127.0.0.1:{self._port}", f"{next(self._accounts):012}")

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if listens(process, self._port):
                with suppress(BotoCoreError):
                    self.account().client("sts").get_caller_identity()
                    return
            time.sleep(0.05)
        raise RuntimeError(f"MiniStack does not start; its log ends:\n{tail(self.log)}")


class Account:
    """One account of it, in one region."""

    region = "us-east-1"

    def __init__(self, endpoint_url: str, number: str) -> None:
        self.endpoint_url, self.number = endpoint_url, number
        self._clients: dict[str, Any] = {}

    def environment(self) -> dict[str, str]:
        """Return what a child process needs to meet this AWS, and never a real one."""
        environment = environment_of(self.endpoint_url, "any")
        return {**environment, "AWS_ACCESS_KEY_ID": self.number}

    def client(self, name: str) -> Any:
        """Return a boto3 client of the named service."""
        if name not in self._clients:
            self._clients[name] = _SESSION.client(  # type: ignore[call-overload]  # any service name
                name,
                endpoint_url=self.endpoint_url,
                region_name=self.region,
                aws_access_key_id=self.number,
                aws_secret_access_key="any",  # it takes any
                config=Config(proxies={}),
            )
        return self._clients[name]


def open_to_others(to_us: Container[str] = LOOPBACK) -> Iterator[str]:
    """Where this process or one that it started listens, other than for us; by /proc/net."""
    us = psutil.Process()
    for process in (us, *us.children(recursive=True)):
        with suppress(psutil.Error):  # it has ended
            for socket in process.net_connections("inet"):
                is_open = (
                    socket.status in (psutil.CONN_LISTEN, psutil.CONN_NONE) and not socket.raddr
                )
                if is_open and socket.laddr and socket.laddr.ip not in to_us:
                    yield f"{' '.join(process.cmdline()[:3])}: {socket.laddr}"


def without_metric_math(template: dict[str, Any]) -> dict[str, Any]:
    """Take the alarms on a share of failures out of the stack's template: it has none such."""
    made = template["Resources"].items()
    kept = {name: it for name, it in made if "Metrics" not in it["Properties"]}
    return {**template, "Resources": kept}


def with_ecs_role(account: Account) -> None:
    """Make ECS's service-linked role, which it would call AWSServiceRoleForEcs.

    Source of the name: ECS developer guide, "Using service-linked roles for Amazon ECS".
    """
    account.client("iam").create_role(
        Path="/aws-service-role/ecs.amazonaws.com/",
        RoleName="AWSServiceRoleForECS",
        AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": []}),
    )


def ask(kind: str, questions: Iterable[Any]) -> list[Any]:
    """Ask `judge.py` all the questions at once; return the answers, in their order."""
    finished = subprocess.run(
        [PYTHON, Path(__file__).with_name("judge.py"), kind],
        input=json.dumps(list(questions)),
        capture_output=True,
        text=True,
        check=True,
    )
    answers: list[Any] = json.loads(finished.stdout)
    return answers
