"""The embedded cloud: AWS, Prefect, Fargate, Lambda and EventBridge joined, on one laptop.

Real are Prefect's server and worker, the flows, `chalice deploy`, the zip and Lambda's runtime
client; AWS is emulated. All of it listens on 127.0.0.1 and is gone when the `with` ends.
"""

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from localcloud.access_proxy import AccessProxy
from localcloud.aws import EmulatedAws
from localcloud.bootstrap import (
    AUTH_PARAMETER,
    CLUSTER,
    STAGE,
    access_of_client,
    provision,
    set_up_observer,
    stack_outputs,
    store_access,
    store_credential,
)
from localcloud.deployment import PROJECT, deploy, deploy_as_shipped, run_program
from localcloud.events import EventRouter
from localcloud.fargate import Fargate, Timings
from localcloud.fault_proxy import FaultProxy
from localcloud.lambdas import LambdaService
from localcloud.moto_additions import LAMBDA_QUOTA
from localcloud.oracle import Observation, observe
from localcloud.postgres import Postgres
from localcloud.prefect_api import PrefectApi
from localcloud.prefect_server import PrefectServer
from localcloud.processes import Supervisor, free_port

LAMBDA_PYTHON = PROJECT / ".venvs" / "lambda" / "bin" / "python"
REACT = f"prefect-spot-{STAGE}-react"
SWEEP = f"prefect-spot-{STAGE}-sweep"
PROVISION = f"prefect-spot-{STAGE}-provision"
WORKER_SERVICE = "worker"
SCHEDULED: Mapping[str, object] = {
    "source": "aws.events",
    "detail-type": "Scheduled Event",
    "detail": {},
}
"""What a schedule sends."""

T = TypeVar("T")


def new_auth_string() -> str:
    """Return a user and a password that nobody can know."""
    return f"admin:{secrets.token_hex(16)}"


@dataclass(frozen=True)
class Options:
    """How the cloud is built. `settings` are the deployed Lambdas', over what the cloud needs.

    `auth_string`: what the Prefect server demands, "user:password".
    `retry_scale`: factor on Lambda's pauses of 60 and 120 s between its tries.
    `faults`: the deployed Lambdas, and nothing else, reach Prefect and AWS through fault proxies.
    `observer`: the worker runs prefect-aws's observer, with the queue it needs.
    `postgres`: Prefect keeps its runs in PostgreSQL, which bears many clients at once.
    `proxy`: Lambdas, worker and flows reach Prefect through an access proxy only, whose certificate
    a private authority signed.
    `worker`: whether there is one at all; without, the pool's runs stay scheduled.
    `lambda_concurrency`: how many processes each function may have.
    `as_shipped`: a plain `chalice deploy` of the shipped config with two settings, in an account
    with a new one's quota of Lambda; `settings`, `worker_query_seconds` and
    `lambda_timeout_seconds` do not apply.
    """

    auth_string: str = field(default_factory=new_auth_string)
    settings: Mapping[str, str] = field(default_factory=dict)
    timings: Timings = field(default_factory=Timings)
    worker_query_seconds: int = 2
    lambda_timeout_seconds: int = 20
    retry_scale: float = 0.5
    faults: bool = False
    observer: bool = False
    postgres: bool = False
    proxy: bool = False
    worker: bool = True
    lambda_concurrency: int = 2
    as_shipped: bool = False


@dataclass(frozen=True)
class Cloud:
    """The running parts, for the demo and the tests."""

    folder: Path
    aws: EmulatedAws
    outputs: Mapping[str, str]
    """Of the stage's stack: where things are."""
    prefect: PrefectApi
    server: PrefectServer
    fargate: Fargate
    router: EventRouter
    lambdas: LambdaService
    environment: Mapping[str, str]
    """For a Prefect command line or SDK: where the server is, and how to be let in."""
    prefect_faults: FaultProxy | None = None
    """Between the Lambdas and Prefect; None unless `Options.faults`. So is `aws_faults`."""
    aws_faults: FaultProxy | None = None
    proxy: AccessProxy | None = None
    """None unless `Options.proxy`."""

    def run_python(self, *arguments: str) -> str:
        """Run a Python program as a user of this cloud; return its output."""
        return run_program([sys.executable, *arguments], self.environment)

    def zip_bytes(self) -> int:
        """Size of the deployed zip."""
        answer = self.aws.client("lambda").get_function(FunctionName=REACT)
        return int(answer["Configuration"]["CodeSize"])

    def observe(
        self, flow_run_id: str, *, budget: int | None = None, rescued: bool = True
    ) -> Observation:
        """Return a run as it looks from the outside, for the oracle."""
        return observe(
            self.prefect.run(flow_run_id),
            self.prefect.history(flow_run_id),
            self.fargate.ledger(),
            budget=budget,
            rescued=rescued,
        )

    def tasks(self, flow_run_id: str) -> list[str]:
        """ARNs of the run's ECS tasks, in the order they were placed."""
        return [life.task_arn for life in self.fargate.ledger() if life.flow_run_id == flow_run_id]


@contextmanager
def embedded_cloud(
    options: Options, report: Callable[[str], None] = lambda _: None
) -> Iterator[Cloud]:
    """Build the cloud, hand it out, and end it. `report` gets each step.

    Raises RuntimeError, with the log of the part that failed, when one does not start.
    """
    with ExitStack() as stack:
        supervisor = stack.enter_context(Supervisor.open())
        folder = supervisor.folder
        report("starting a Prefect server")
        database = "sqlite"
        if options.postgres:
            postgres = stack.enter_context(Postgres(folder / "postgres", supervisor.spawn))
            database = postgres.create_database("prefect")
        server = PrefectServer(
            folder / "prefect",
            supervisor.spawn,
            database=database,
            auth_string=options.auth_string,
        )
        with ThreadPoolExecutor(1) as pool:
            starting = pool.submit(server.__enter__)
            aws = stack.enter_context(EmulatedAws())
            if options.as_shipped:
                os.environ[LAMBDA_QUOTA] = "10"
                stack.callback(os.environ.pop, LAMBDA_QUOTA)
            store_credential(aws, options.auth_string)
            settings, proxy = {"PREFECT_API_URL": server.api_url}, None
            if options.proxy:
                proxy = stack.enter_context(AccessProxy(server.ui_url, folder / "proxy"))
                settings = {"PREFECT_API_URL": f"{proxy.url}/api", **store_access(aws, proxy)}
            report("chalice deploy")
            _deploy(aws, folder / "project", settings, options)
            starting.result()
        stack.push(server.__exit__)
        report(f"Prefect {server.version} answers")
        environment = {
            "PREFECT_API_URL": settings["PREFECT_API_URL"],
            **(access_of_client(proxy, folder) if proxy else {}),
            "PREFECT_API_AUTH_STRING": options.auth_string,
            **aws.environment(),
        }
        lambdas = stack.enter_context(
            LambdaService(
                supervisor,
                aws,
                LAMBDA_PYTHON,
                retry_scale=options.retry_scale,
                concurrency=options.lambda_concurrency,
            )
        )
        router = stack.enter_context(EventRouter(aws, lambdas.invoke_async))
        fargate = stack.enter_context(
            Fargate(
                supervisor,
                aws,
                router.put,
                path_prefix=Path(sys.executable).parent,
                extra_environment={
                    "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
                    # Containers share this machine's addresses: the one in the stack's template
                    # would be everybody's.
                    "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
                    "PREFECT_WORKER_WEBSERVER_PORT": str(free_port()),
                    **(set_up_observer(aws) if options.observer else {}),
                },
                timings=options.timings,
            )
        )
        provision(lambda: lambdas.invoke(PROVISION, SCHEDULED), report)
        if not options.worker:
            report("sending the worker away")
            _scale_worker_to_none(aws, fargate)
        prefect_faults = aws_faults = None
        if options.faults:
            prefect_faults = stack.enter_context(FaultProxy(server.ui_url))
            aws_faults = stack.enter_context(FaultProxy(aws.endpoint_url))
            _put_between(aws, prefect_faults, aws_faults)
        yield Cloud(
            folder=folder,
            aws=aws,
            outputs=stack_outputs(aws),
            prefect=PrefectApi(server.api_url, options.auth_string),
            server=server,
            fargate=fargate,
            router=router,
            lambdas=lambdas,
            environment=environment,
            prefect_faults=prefect_faults,
            aws_faults=aws_faults,
            proxy=proxy,
        )


def _deploy(aws: EmulatedAws, folder: Path, access: Mapping[str, str], options: Options) -> None:
    if options.as_shipped:
        deploy_as_shipped(aws, folder, STAGE, access["PREFECT_API_URL"], AUTH_PARAMETER)
        return
    settings = {
        **access,
        "PREFECT_API_AUTH_STRING_PARAMETER": AUTH_PARAMETER,
        "WORKER_QUERY_SECONDS": str(options.worker_query_seconds),
        **options.settings,
    }
    deploy(aws, folder, STAGE, settings, options.lambda_timeout_seconds)


def _scale_worker_to_none(aws: EmulatedAws, fargate: Fargate) -> None:
    """Wait until its container has exited: until then a worker goes on taking runs."""
    ecs = aws.client("ecs")
    ecs.update_service(cluster=CLUSTER, service=WORKER_SERVICE, desiredCount=0)

    def is_gone() -> bool:
        [service] = ecs.describe_services(cluster=CLUSTER, services=[WORKER_SERVICE])["services"]
        counted = service["runningCount"] + service["pendingCount"]
        return not counted and not any(x.started and not x.exited for x in fargate.ledger())

    wait_for("the worker's exit", 180, is_gone)


def _put_between(aws: EmulatedAws, prefect_faults: FaultProxy, aws_faults: FaultProxy) -> None:
    """Have the functions that rescue go through the proxies; the worker's address stays."""
    client = aws.client("lambda")
    for name in (REACT, SWEEP):
        environment = client.get_function_configuration(FunctionName=name)["Environment"]
        # A function's own environment comes before what the emulated Lambda gives to all.
        environment["Variables"] |= {
            "PREFECT_API_URL": f"{prefect_faults.url}/api",
            "AWS_ENDPOINT_URL": aws_faults.url,
        }
        client.update_function_configuration(FunctionName=name, Environment=environment)


def wait_for(
    what: str, seconds: float, ask: Callable[[], T | None], every_seconds: float = 0.25
) -> T:
    """Ask again and again until the answer is true; return it.

    Raises TimeoutError naming `what` after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        if answer := ask():
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(every_seconds)
