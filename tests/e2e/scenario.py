"""Drives flow runs through the embedded cloud: start, interrupt, wait, judge.

What goes wrong on purpose is a property of a run, never of the cloud: many runs share one.
"""

import json
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from localcloud.bootstrap import CLUSTER, WORK_POOL
from localcloud.cloud import REACT, SWEEP, Cloud, Options, embedded_cloud, wait_for
from localcloud.events import DeliveryPlan
from localcloud.oracle import Verdict, judge
from localcloud.task_life import ContainerLife
from tests.make import make_event
from tests.tiers import BUILD

ATTEMPT_SECONDS = 300
"""Until the next attempt starts: other runs' starts, Lambda's tries, a busy machine."""
END_SECONDS = 300
IDLE_SECONDS = 240
"""Lambda's two further tries of an event."""
API_SECONDS = 1.0
"""Between two questions to Prefect: many stories ask one server."""
MAILBOX = "mailbox"
SWEEP_EVENT = {"source": "aws.events", "detail": {}}
SWEEP_TRIES = 3
"""On AWS, the next sweep follows one that failed."""
LINES = 15
"""Of each log, to look at when a test fails, each of at most `CHARACTERS`."""
CHARACTERS = 400


@dataclass(frozen=True)
class Stage:
    """The cloud with the test flows deployed to it.

    `runs` are those that were started on this stage; a story has a stage of its own.
    `sweeping` is held while a sweep is under way.
    """

    options: Options
    cloud: Cloud
    deployments: dict[str, str]
    folder: Path
    runs: list["Run"] = field(default_factory=list)
    sweeping: threading.Lock = field(default_factory=threading.Lock)

    def start(
        self,
        flow: str,
        *,
        tags: Sequence[str] = (),
        job_variables: dict[str, Any] | None = None,
        queue: str = "default",
        event_faults: DeliveryPlan | None = None,
        **parameters: Any,
    ) -> "Run":
        """Start a run; it notes what it really does in a file of its own.

        `event_faults` is what happens to the events of its tasks.
        """
        notes = self.folder / f"{flow}-{uuid4().hex[:8]}"
        run_id = self.cloud.prefect.start(
            self.deployments[flow],
            tags=list(tags),
            job_variables=job_variables or {},
            work_queue_name=queue,
            parameters={"file": str(notes), **parameters},
        )
        if event_faults is not None:
            self.cloud.router.plan_of[run_id] = event_faults
        return self.watch(run_id, notes)

    def watch(self, run_id: str, notes: Path) -> "Run":
        """Take a run that something else started for one of this stage's."""
        run = Run(self.cloud, run_id, notes)
        self.runs.append(run)
        return run

    def sweep(self) -> dict[str, Any]:
        """Run the deployed sweep once its grace is over from now on; return what it answers."""
        time.sleep(float(self.options.settings["SWEEP_GRACE_SECONDS"]) + 1)
        for _ in range(SWEEP_TRIES):
            with self.sweeping:
                answer = self.cloud.lambdas.invoke(SWEEP, SWEEP_EVENT)
            if answer.status == "ok":
                break
        assert answer.status == "ok", answer.error
        return dict(answer.answer)

    @contextmanager
    def kept_sweeping(self, every_seconds: float | None = None) -> Iterator[None]:
        """Run the deployed sweep as its schedule does, or a whole one every so many seconds."""
        event = SWEEP_EVENT if every_seconds else {**SWEEP_EVENT, "detail-type": "Scheduled Event"}
        seconds = every_seconds or self.cloud.router.schedules()[SWEEP]
        over = threading.Event()

        def keep_sweeping() -> None:
            while not over.wait(seconds):
                with self.sweeping:
                    self.cloud.lambdas.invoke(SWEEP, event)

        thread = threading.Thread(target=keep_sweeping, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @contextmanager
    def copy_of_react(self, name: str, handler: str = "react", **settings: str) -> Iterator[None]:
        """Create a function with the zip and settings of `react`, some changed; delete it after."""
        functions = self.cloud.aws.client("lambda")
        config = functions.get_function_configuration(FunctionName=REACT)
        functions.create_function(
            FunctionName=name,
            Runtime=config["Runtime"],
            Role=config["Role"],
            Handler=f"app.{handler}",
            Timeout=config["Timeout"],
            Environment={"Variables": {**config["Environment"]["Variables"], **settings}},
            Code={"ZipFile": self.zip_file()},
        )
        yield
        functions.delete_function(FunctionName=name)

    def zip_file(self) -> bytes:
        return bytes(self.cloud.aws.lambdas.get_function(REACT).code_bytes)


@contextmanager
def set_up(options: Options, folder: Path, name: str) -> Iterator[Stage]:
    """A cloud of its own, with the test flows deployed; `folder` is for their notes.

    All that its functions, roles and operator asked of AWS is in `build/calls/NAME.json` at the
    end: `tests/second_aws` has another IAM judge it.
    """
    record = BUILD / "calls" / f"{name}.json"
    record.unlink(missing_ok=True)
    with embedded_cloud(options, report=print) as cloud:
        output = cloud.run_python(
            "-m", "tests.e2e.deploy_flows", WORK_POOL, cloud.outputs["ResultsBucket"]
        )
        yield Stage(options, cloud, json.loads(output.strip().splitlines()[-1]), folder)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(sorted(cloud.aws.requests), indent=0))
        assert cloud.fargate.errors == []


@dataclass(frozen=True)
class Run:
    """One flow run, and the file in which its flow notes what it does."""

    cloud: Cloud
    id: str
    notes_file: Path

    def notes(self) -> list[str]:
        return self.notes_file.read_text().splitlines() if self.notes_file.exists() else []

    def starts(self) -> int:
        return self.notes().count("start")

    def containers(self) -> list[ContainerLife]:
        return [life for life in self.cloud.fargate.ledger() if life.flow_run_id == self.id]

    def fields(self) -> dict[str, Any]:
        """What Prefect has of the run now."""
        return self.cloud.prefect.run(self.id)

    def state_type(self) -> str:
        return str(self.fields()["state_type"])

    def capacities(self) -> list[str]:
        return [life.capacity for life in self.containers()]

    def wait_for_start(self, number: int, seconds: float = ATTEMPT_SECONDS) -> None:
        wait_for(f"start {number} of {self.id}", seconds, lambda: self.starts() >= number)

    def wait_for_note(self, note: str) -> None:
        wait_for(f"{note!r} of {self.id}", ATTEMPT_SECONDS, lambda: note in self.notes())

    def wait_for_state(self, state_type: str) -> None:
        what = f"{state_type} of {self.id}"
        wait_for(what, ATTEMPT_SECONDS, lambda: self.state_type() == state_type, API_SECONDS)

    def interrupt(self) -> str:
        """Have Spot take the run's newest task; return its ARN once the container has exited."""
        task = self.containers()[-1].task_arn
        self.cloud.fargate.interrupt(task)
        wait_for("the container's exit", ATTEMPT_SECONDS, lambda: self._life(task).exited)
        return task

    def interrupt_each_start(self, times: int) -> None:
        """Interrupt the run's first attempts, each once its flow has started."""
        for number in range(1, times + 1):
            self.wait_for_start(number)
            self.interrupt()

    def let_go_on(self) -> None:
        """Open the gate at which `gated` flows wait."""
        Path(f"{self.notes_file}.open").touch()

    def wait_until_stopped(self) -> str:
        """Wait until ECS says STOPPED of the run's newest task; return its ARN."""
        task = self.containers()[-1].task_arn
        wait_for(f"the end of {task}", ATTEMPT_SECONDS, lambda: self._life(task).stopped)
        return task

    def wait_for_end(self) -> dict[str, Any]:
        """Wait until the run is over and none of its containers is left; return the run."""
        prefect, fargate = self.cloud.prefect, self.cloud.fargate

        def is_over() -> bool:
            return not fargate.running(self.id) and prefect.is_final(self.id)

        wait_for(f"the end of {self.id}", END_SECONDS, is_over, API_SECONDS)
        if self.containers():
            self.wait_until_stopped()
        self.wait_until_handled()
        return self.fields()

    def completes(self, *, starts: int) -> None:
        """Wait for the good end; the flow started so often, each time in a task of its own."""
        self.wait_for_state("COMPLETED")  # others may mark it Crashed or Cancelled before
        self.wait_for_end()
        assert self.starts() == len(self.containers()) == starts, self.notes()

    def wait_until_handled(self) -> None:
        """Wait until the functions have dealt with all events about the run so far."""
        self.cloud.lambdas.wait_idle(IDLE_SECONDS, about=self.id)

    def verdict(self, *, budget: int | None = None, rescued: bool = True) -> Verdict:
        return judge(self.cloud.observe(self.id, budget=budget, rescued=rescued))

    def states(self) -> list[str]:
        return [state["type"] for state in self.cloud.prefect.history(self.id)]

    def log_lines(self) -> list[str]:
        """What the functions printed about the run or one of its tasks."""
        names = (self.id, *(life.task_arn for life in self.containers()))
        printed = [line for i in list(self.cloud.lambdas.invocations) for line in i.logs]
        return [line for line in printed if any(name in line for name in names)]

    def report(self) -> str:
        states = [
            f"{state['timestamp']} {state['type']} {state['name']}: {state['message'] or ''}"
            for state in self.cloud.prefect.history(self.id)
        ]
        parts = [f"run {self.id}", *states, "the functions' log:", *self.log_lines()[-LINES:]]
        for life in self.containers():
            log = self.cloud.fargate.log_of(life.task_arn)
            output = log.read_text(errors="replace").splitlines() if log.exists() else []
            parts.append(
                f"{life.task_arn.rpartition('/')[2]} on {life.capacity}, exit code"
                f" {life.exit_code}, interrupted at {life.interrupted_at}:"
            )
            parts += output[-LINES:]
        return "\n".join([parts[0], *(f"  {part[:CHARACTERS]}" for part in parts[1:])])

    def _life(self, task: str) -> ContainerLife:
        return next(life for life in self.containers() if life.task_arn == task)


def subscribe_mailbox(cloud: Cloud) -> None:
    """Have a queue subscribed to the alarm topic: what a person's mailbox gets."""
    sqs = cloud.aws.client("sqs")
    url = sqs.create_queue(QueueName=MAILBOX)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    topic = cloud.outputs["AlarmTopicArn"]
    cloud.aws.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn["QueueArn"])


def mailbox(cloud: Cloud) -> Iterator[dict[str, Any]]:
    """Take out what it got."""
    sqs = cloud.aws.client("sqs")
    url = sqs.get_queue_url(QueueName=MAILBOX)["QueueUrl"]
    while got := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in got:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            yield json.loads(message["Body"])


def event_of_no_run(**detail: str) -> dict[str, Any]:
    """An event about an interrupted task of the cluster; Prefect does not know its run."""
    account = "123456789012"
    arn = f"arn:aws:ecs:us-east-1:{account}:{{}}"
    ours = {
        "taskArn": arn.format(f"task/{CLUSTER}/{'0123456789abcdef' * 2}"),
        "clusterArn": arn.format(f"cluster/{CLUSTER}"),
    }
    return make_event({**ours, **detail}, account=account, resources=[ours["taskArn"]])


def decisions(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Return the decisions to do something that are among the lines that functions printed.

    A busy machine has handlers fail and be retried, and the runtime's words about that are no JSON.
    """
    records = [json.loads(line) for line in lines if line.startswith("{")]
    return [record for record in records if record.get("decision", "ignore") != "ignore"]
