"""The project as `chalice deploy` makes it, in an emulated AWS of its own."""

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from lab.bench.servers import Aws, Prefect
from localcloud.aws import EmulatedAws
from localcloud.bootstrap import STAGE
from localcloud.cloud import LAMBDA_PYTHON, REACT
from localcloud.deployment import copy_project, deploy
from localcloud.lambda_environment import ExecutionEnvironment, FunctionConfig, Outcome
from localcloud.processes import Supervisor

TIMEOUT_SECONDS: Final = 30
OTHER_NAME: Final = "another-checkout"

SETTINGS: Final = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
"""Replaced by the address of its server in each runtime."""

AS_ON_LAMBDA: Final = {"PYTHONDONTWRITEBYTECODE": "1"}
"""The zip's folder cannot be written to there: its code is compiled in each cold start."""


@dataclass(frozen=True)
class Deployed:
    """What `chalice deploy` made of this project, and of what is compared with it."""

    supervisor: Supervisor
    aws: EmulatedAws

    def zip_bytes(self, function: str = REACT) -> int:
        """Return the size of a function's deployed zip."""
        return len(self.aws.lambdas.get_function(function).code_bytes)

    def runtime(self, function: str = REACT, *servers: Prefect | Aws) -> ExecutionEnvironment:
        """Start a runtime of a function, which reaches these servers."""
        config = FunctionConfig.of(self.aws.lambdas.get_function(function))
        environment = {**dict(config.environment), **AS_ON_LAMBDA}
        for server in servers:
            environment |= server.environment
        config = replace(config, environment=tuple(sorted(environment.items())))
        return ExecutionEnvironment(self.supervisor, self.aws, LAMBDA_PYTHON, config)

    def add_checkout(self, checkout: Path) -> str:
        """Deploy another checkout of this repository, its functions renamed; return its `react`."""
        folder = self.supervisor.folder / OTHER_NAME
        copy_project(folder, checkout)
        config = folder / ".chalice" / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "app_name": OTHER_NAME}))
        deploy(self.aws, folder, STAGE, SETTINGS, TIMEOUT_SECONDS)
        return f"{OTHER_NAME}-{STAGE}-react"

    def add_function(self, name: str, source: Path) -> None:
        """Add a function of one file, with the environment that ours have; `handler` is its own."""
        functions = self.aws.client("lambda")
        ours = functions.get_function_configuration(FunctionName=REACT)
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.write(source, source.name)
        functions.create_function(
            FunctionName=name,
            Handler=f"{source.stem}.handler",
            Code={"ZipFile": code.getvalue()},
            **{key: ours[key] for key in ("Runtime", "Role", "Timeout", "Environment")},
        )


@contextmanager
def deployed(supervisor: Supervisor) -> Iterator[Deployed]:
    """Deploy this project as it is; each runtime is given the addresses of its servers."""
    with EmulatedAws() as aws:
        deploy(aws, supervisor.folder / "project", STAGE, SETTINGS, TIMEOUT_SECONDS)
        yield Deployed(supervisor, aws)


def answered(runtime: ExecutionEnvironment, event: Mapping[str, Any]) -> Outcome:
    """Have the runtime answer an event. Raises RuntimeError where it fails."""
    outcome = runtime.run(str(uuid4()), json.dumps(event).encode())
    if outcome.status != "ok":
        raise RuntimeError(f"{runtime.config.name} failed: {outcome.error}\n{outcome.logs}")
    return outcome
