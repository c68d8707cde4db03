"""The worker's newest stopped task and its log, as status and deploy show them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from uuid import uuid4

import pytest
from botocore.stub import Stubber
from moto.ecs.models import Task

from localcloud import moto_additions
from localcloud.deployment import PROJECT
from localcloud.moto_additions import EcsHooks, LambdaAnswer
from spotctl.context import Aws, Context
from spotctl.deploy import deploy
from spotctl.output import State
from spotctl.project import read_project
from spotctl.status import stack, stopped
from spotctl.status.stopped import LATELY, LINES, Stopped
from tests.make import NOW, seconds
from tests.unit.spotctl_bench import KEY, STACK, Bench, stage

__all__ = ["stage"]  # the fixture

GROUP: Final = f"/ecs/{STACK}"
LOG: Final = {
    "logDriver": "awslogs",
    "options": {"awslogs-group": GROUP, "awslogs-region": "x", "awslogs-stream-prefix": "worker"},
}
EXITED: Final = {
    "stopCode": "EssentialContainerExited",
    "stoppedReason": "Essential container in task exited",
    "startedAt": NOW - seconds(200),
    "stoppedAt": NOW - seconds(120),
    "containers": [{"name": "worker", "exitCode": 1}],
}
NO_IMAGE: Final = {
    "stopCode": "TaskFailedToStart",
    "stoppedReason": "CannotPullContainerError: pull image manifest has been retried 1 time(s)",
    "stoppedAt": NOW - seconds(120),
    "containers": [{"name": "worker", "reason": "CannotPullContainerError: no such tag"}],
}
SCALED_IN: Final = {
    **EXITED,
    "stopCode": "ServiceSchedulerInitiated",
    "stoppedReason": "Scaling activity initiated by (deployment ecs-svc/1)",
}
BY_HAND: Final = {**EXITED, "stopCode": "UserInitiated", "stoppedReason": "by hand"}
UNHEALTHY: Final = {
    **EXITED,
    "stopCode": "ServiceSchedulerInitiated",
    "stoppedReason": "Task failed container health checks",
}


class Worker:
    """The worker's stopped tasks in moto's ECS, each described as it is given here."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.aws = bench, Aws()
        self.described: dict[str, Mapping[str, Any]] = {}
        bench.client("ecs").create_cluster(clusterName=STACK)

    def stop(self, described: Mapping[str, Any], log: Any = LOG, family: str = "worker") -> str:
        """Add a stopped task, a second newer than the one before; return its id."""
        ecs, ec2 = self.bench.client("ecs"), self.bench.client("ec2")
        container = {"name": "worker", "image": "x", "memory": 512}
        container |= {"logConfiguration": log} if log else {}
        made = ecs.register_task_definition(
            family=f"{STACK}-{family}", containerDefinitions=[container], networkMode="awsvpc"
        )
        subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        [task] = ecs.run_task(
            cluster=STACK,
            taskDefinition=made["taskDefinition"]["taskDefinitionArn"],
            launchType="FARGATE",
            networkConfiguration={"awsvpcConfiguration": {"subnets": [subnet]}},
        )["tasks"]
        ecs.stop_task(cluster=STACK, task=task["taskArn"])
        created = {"createdAt": NOW - seconds(300 - len(self.described)), "lastStatus": "STOPPED"}
        self.described[task["taskArn"]] = {**created, **described}
        return str(task["taskArn"].rpartition("/")[2])

    def print(self, task_id: str, *lines: str) -> None:
        """Put lines into the task's log stream."""
        logs = self.bench.client("logs")
        if not logs.describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"]:
            logs.create_log_group(logGroupName=GROUP)
        place = {"logGroupName": GROUP, "logStreamName": f"worker/worker/{task_id}"}
        logs.create_log_stream(**place)
        now = int(NOW.timestamp() * 1000)
        logs.put_log_events(**place, logEvents=[{"timestamp": now, "message": m} for m in lines])

    def context(self, **changes: Any) -> Context:
        """A context in which nothing waits, and Chalice does nothing."""
        ordinary: dict[str, Any] = {
            "project": read_project(self.bench.folder, "dev"),
            "aws": self.aws,
            "now": lambda: NOW,
            "pause": lambda _seconds: None,
            "environment": {},
            "progress": lambda _line: None,
            "chalice": lambda _command: 0,
        }
        return Context(**{**ordinary, **changes})

    def found(self) -> Stopped:
        found = stopped.read(self.context())
        assert found
        return found

    def describe(self, task: Task) -> Any:
        arns = {"taskArn": task.task_arn, "clusterArn": task.cluster_arn, "tags": []}
        arns["taskDefinitionArn"] = task.task_definition_arn
        return {**arns, **self.described.get(task.task_arn, {})}


@pytest.fixture
def worker(stage: Bench) -> Iterator[Worker]:
    made = Worker(stage)
    moto_additions.connect_ecs(
        EcsHooks(
            has_capacity=lambda *_: True,
            place=lambda *_: None,
            stop=lambda task, _reason: setattr(task, "desired_status", "STOPPED"),
            describe=made.describe,
        )
    )
    yield made
    moto_additions.connect_ecs(None)


def test_the_newest_failed_task_is_shown_with_its_exit_code_and_last_lines(worker: Worker) -> None:
    worker.print(worker.stop(NO_IMAGE), "an older task's line")
    newest = worker.stop(EXITED)
    worker.print(
        newest, *(f"line {number}" for number in range(30)), "    ^^^^^", "401 Unauthorized"
    )
    for described in (SCALED_IN, BY_HAND):
        worker.stop(described)
    worker.stop(UNHEALTHY, family="flow")
    found = worker.found()
    assert found.reason == (
        "Essential container in task exited (EssentialContainerExited);"
        " its container's exit code is 1"
    )
    assert found.log == (*(f"line {number}" for number in range(26, 30)), "401 Unauthorized")
    assert (len(found.log), found.age) == (LINES, seconds(120))
    assert "starts the worker again" in found.next_step


@pytest.mark.parametrize(
    ("described", "log", "reason", "next_step"),
    [
        (NO_IMAGE, LOG, "its container: CannotPullContainerError: no such tag; no log", "image"),
        (EXITED, LOG, f"no log, since {GROUP} has no stream worker/worker/", "correct"),
        (EXITED, None, "names no awslogs group and prefix", "correct"),
        ({**EXITED, "stopCode": None}, None, "(no stop code)", "correct"),
        (UNHEALTHY, LOG, "Task failed container health checks (ServiceSched", "correct"),
    ],
    ids=["no image", "no stream", "no log driver", "no stop code", "unhealthy"],
)
def test_a_task_without_a_log_says_why_there_is_none(
    worker: Worker, described: dict[str, Any], log: Any, reason: str, next_step: str
) -> None:
    worker.stop({name: value for name, value in described.items() if value}, log)
    found = worker.found()
    assert reason in found.reason
    assert next_step in found.next_step
    assert found.log == ()


@pytest.mark.parametrize("described", [None, SCALED_IN, BY_HAND], ids=["none", "old", "by hand"])
def test_a_worker_that_was_replaced_or_stopped_by_hand_has_not_failed(
    worker: Worker, described: dict[str, Any] | None
) -> None:
    if described:
        worker.stop(described)
    assert stopped.read(worker.context()) is None


def test_without_a_cluster_there_is_no_stopped_task(worker: Worker) -> None:
    worker.stop(EXITED)
    worker.bench.configure(STACK_NAME="another")
    assert stopped.read(worker.context()) is None


RUN_ID: Final = str(uuid4())
OF_A_FLOW: Final = {
    **EXITED,
    "startedAt": NOW - seconds(121),
    "attributes": [{"name": "ecs.cpu-architecture", "value": "arm64"}],
    "overrides": {
        "containerOverrides": [
            {"name": "worker", "environment": [{"name": "PREFECT__FLOW_RUN_ID", "value": RUN_ID}]}
        ]
    },
}
NO_PLATFORM: Final = "image Manifest does not contain descriptor matching platform 'linux/arm64'"


@pytest.mark.parametrize(
    ("described", "line", "is_shown"),
    [
        (OF_A_FLOW, "exec /usr/bin/tini: exec format error", True),
        (OF_A_FLOW, "ModuleNotFoundError: No module named 'sales'", False),
        ({**OF_A_FLOW, "startedAt": NOW - seconds(200)}, "git: exec format error", False),
        ({**OF_A_FLOW, "overrides": {}}, "exec /usr/bin/tini: exec format error", False),
        ({**OF_A_FLOW, **NO_IMAGE, "startedAt": None, "stoppedReason": NO_PLATFORM}, "-", True),
        ({**OF_A_FLOW, **NO_IMAGE, "startedAt": None}, "-", False),
    ],
    ids=["by its log", "another line", "it ran", "no flow's", "by ECS's reason", "no image"],
)
def test_a_flow_image_for_another_architecture_is_recognised(
    worker: Worker, described: dict[str, Any], line: str, *, is_shown: bool
) -> None:
    worker.print(
        worker.stop({n: v for n, v in described.items() if v is not None}, family="flow"), line
    )
    worker.stop(EXITED)
    rows = stopped.rows_of_flows(worker.context())
    assert bool(rows) is is_shown
    for row in rows:
        assert row.found == (
            f"of run {RUN_ID}: its image is for another CPU architecture than the task, arm64"
        )
        assert "ARCHITECTURE" in row.next_step


def test_a_worker_image_for_another_architecture_has_its_next_step(worker: Worker) -> None:
    task = worker.stop({**EXITED, "startedAt": NOW - seconds(121)})
    worker.print(task, "exec /usr/bin/tini: exec format error")
    assert "set ARCHITECTURE" in worker.found().next_step


DENIED: Final = "AccessDeniedException"


@pytest.mark.parametrize(
    ("service", "operation", "reason"),
    [
        ("ecs", "list_tasks", "the worker's stopped tasks were not read: "),
        ("logs", "get_log_events", "(EssentialContainerExited); its container's exit code is 1"),
    ],
)
def test_what_aws_denies_is_a_line_that_says_so(
    worker: Worker, service: str, operation: str, reason: str
) -> None:
    worker.print(worker.stop(EXITED), "a line")
    with Stubber(worker.aws.client(service)) as refusing:
        refusing.add_client_error(operation, DENIED, "you are not authorized")
        found = worker.found()
    assert reason in found.reason
    assert "you are not authorized" in found.reason
    assert found.next_step == f"allow your AWS identity {operation.title().replace('_', '')}"
    assert found.log == ()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\x1b[31mred\x1b[0m \x1b]0;title\x07\u202e\u200bend\r\n", "red ]0;title end"),
        (f"key {KEY}!", "key pnu_***!"),
        (
            "GET https://user:pass@prefect.example.com/api",
            "GET https://***@prefect.example.com/api",
        ),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: *** ***"),
        ("'PREFECT_API_AUTH_STRING': 'admin:pass', x", "'PREFECT_API_AUTH_STRING': ***, x"),
        ("AWS_SECRET_ACCESS_KEY=abc/def+ghi rest", "AWS_SECRET_ACCESS_KEY=*** rest"),
        ("postgres://user:p@ss@db/prefect", "postgres://***@db/prefect"),
        (r"{\"password\": \"hunter two\"}", r"{\"password\": ***}"),
        ("X-Api-Key: abcd; passphrase=hunter2", "X-Api-Key: ***; passphrase=***"),
        ("401 Unauthorized for url 'http://x/api'", "401 Unauthorized for url 'http://x/api'"),
    ],
)
def test_a_line_of_the_log_obeys_no_terminal_and_shows_no_credential(line: str, shown: str) -> None:
    assert stopped.last_lines([line]) == (shown,)


def test_of_a_long_log_the_newest_lines_are_kept_within_bounds() -> None:
    lines = stopped.last_lines(f"{number} " + "x" * 10_000 for number in range(9))
    assert [line[0] for line in lines] == ["7", "8"]
    assert sum(map(len, lines)) < 1000
    assert stopped.last_lines(["~~^^~~", "", "  "]) == ()


FOUND: Final = Stopped("it exited", "correct it", seconds(150), ("one", "two"))
UNREAD: Final = Stopped("not read: denied", "allow it")
RUNS: Final = stack.Service(1, 1, "COMPLETED")
NONE_RUNS: Final = stack.Service(0, 1, "IN_PROGRESS")
ROLLS_OUT: Final = stack.Service(1, 1, "IN_PROGRESS")


@pytest.mark.parametrize(
    ("found", "service", "status", "states"),
    [
        (FOUND, RUNS, "CREATE_COMPLETE", ["ok", "warning", "warning"]),
        (Stopped("", "", LATELY + seconds(1)), RUNS, "CREATE_COMPLETE", ["ok"]),
        (UNREAD, RUNS, "CREATE_COMPLETE", ["ok"]),
        (UNREAD, NONE_RUNS, "CREATE_IN_PROGRESS", ["failed", "warning"]),
        (FOUND, NONE_RUNS, "CREATE_IN_PROGRESS", ["failed", "failed", "failed"]),
        (FOUND, ROLLS_OUT, "UPDATE_IN_PROGRESS", ["warning", "warning", "warning"]),
        (FOUND, None, "ROLLBACK_IN_PROGRESS", ["failed", "failed", "failed"]),
        (None, None, "ROLLBACK_COMPLETE", ["failed"]),
    ],
    ids=[
        *(
            "stopped lately",
            "long ago",
            "steady, unread",
            "unread",
            "none runs",
            "the old one runs",
        ),
        *("rolling back", "rolled back"),
    ],
)
def test_a_worker_that_is_not_steady_shows_its_stopped_task(
    found: Stopped | None, service: stack.Service | None, status: str, states: list[str]
) -> None:
    rows = [
        row
        for row in stack.rows(
            stack.Found(status, "", (), service, "us-east-1", found),
            read_project(PROJECT, "dev"),
        )
        if row.part.startswith("worker")
    ]
    assert [row.state.value for row in rows] == states
    assert all(row.next_step for row in rows if row.state is not State.OK)
    texts = [row.found for row in rows]
    if found is FOUND:
        assert texts[1:] == ["2 min ago: it exited", "one | two"]
    if status == "ROLLBACK_COMPLETE":
        assert "tasks and log group went with the rolled-back stack" in texts[0]


BEFORE: Final = {**EXITED, "stoppedReason": "of an earlier deploy", "stoppedAt": NOW - seconds(900)}
MEANWHILE: Final = {**EXITED, "stoppedAt": NOW - seconds(9)}
REASON: Final = "Essential container in task exited (EssentialContainerExited)"


@pytest.mark.parametrize(
    ("states", "rows"),
    [
        (["creating"] * 4 + ["ready"], []),
        (["creating"] * 4 + ["recovering"], [f"0 min ago: {REASON}", "refused | Exit"]),
        (["creating", "updating", "updating", "updating", "blocked"], [REASON, "refused | Exit"]),
    ],
    ids=["it starts after all", "it is rolled back", "something else blocks"],
)
def test_a_deploy_shows_once_why_the_worker_stops_and_again_when_it_fails(
    worker: Worker, states: list[str], rows: list[str]
) -> None:
    worker.bench.deploy_functions()
    worker.stop(BEFORE)
    lines: list[str] = []
    waiting = list(states)

    def provision(_event: object) -> LambdaAnswer:
        if len(waiting) in (4, 3):  # twice the same, but for the time and an id
            id_and_time = f"{uuid4()} 12:00:0{len(waiting)}"
            worker.print(worker.stop(MEANWHILE), f"{id_and_time} refused", "Exit")
        return LambdaAnswer({"state": waiting.pop(0)})

    worker.bench.reply = provision
    done = deploy(worker.context(progress=lines.append))
    log = [line for line in lines if line.startswith("worker's log")]
    assert [line.split()[-1] for line in log] == ["refused", "Exit"]
    [shown] = [line for line in lines if line.startswith("worker: ") and "heartbeat" not in line]
    assert shown.startswith(f"worker: {REASON}")
    assert [row.part for row in done[2:]] == ["worker: stopped task", "worker: log"][: len(rows)]
    assert all(text in row.found for text, row in zip(rows, done[2:], strict=True))


def test_a_deploy_that_may_not_read_the_stopped_tasks_goes_on(worker: Worker) -> None:
    worker.bench.deploy_functions()
    states = ["creating", "creating", "ready"]
    worker.bench.reply = lambda _event: LambdaAnswer({"state": states.pop(0)})
    lines: list[str] = []
    with Stubber(worker.aws.client("ecs")) as refusing:
        for _ in range(30):
            refusing.add_client_error("list_tasks", DENIED, "you are not authorized")
        rows = deploy(worker.context(progress=lines.append))
    assert {row.state for row in rows} == {State.OK}
    [line] = [line for line in lines if "you are not authorized" in line]
    assert line.endswith("allow your AWS identity ListTasks")


def test_a_deploy_shows_each_reason_of_the_worker_and_a_log_that_comes_late(worker: Worker) -> None:
    worker.bench.deploy_functions()
    lines: list[str] = []
    late = worker.stop(MEANWHILE)
    steps: list[Callable[[], Any]] = [
        lambda: None,
        lambda: worker.print(late, "401 Unauthorized"),
        lambda: worker.stop({**MEANWHILE, "containers": [{"exitCode": 137}]}),
        lambda: worker.print(worker.stop(MEANWHILE), "403 Forbidden"),
    ]

    def provision(_event: object) -> LambdaAnswer:
        if not steps:
            return LambdaAnswer({"state": "blocked"})
        steps.pop(0)()
        return LambdaAnswer({"state": "creating"})

    worker.bench.reply = provision
    deploy(worker.context(progress=lines.append))
    shown = [line for line in lines if line.startswith("worker")]
    expected = [
        "code is 1; no log",
        "code is 1; correct",
        "401",
        "code is 137",
        "code is 1;",
        "403",
    ]
    assert len(shown) == len(expected)
    assert all(text in line for text, line in zip(expected, shown, strict=True)), shown
