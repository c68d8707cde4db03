"""The flows of the end-to-end tests; each notes in a file, outside Prefect, what it really did."""

from pathlib import Path
from time import sleep
from typing import Any

from prefect import flow, task
from prefect.deployments import run_deployment
from prefect.exceptions import CrashedRun
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.runtime import flow_run

RESULTS = "s3-bucket/prefect-spot-results"
UNTIL_INTERRUPTED = 600
"""Seconds that an attempt waits at most to be interrupted: a machine may be busy."""


def note(file: str, line: str) -> int:
    """Append a line; return how many there are now."""
    with Path(file).open("a") as notes:
        notes.write(line + "\n")
    return len(Path(file).read_text().splitlines())


@task(persist_result=True)
def step(number: int, file: str, interruptions: int) -> int:
    starts = Path(file).read_text().splitlines().count("start")
    sleep(UNTIL_INTERRUPTED if number >= starts and starts <= interruptions else 1)
    note(file, f"step {number}")
    return number


@flow(persist_result=True, result_storage=RESULTS)
def steps(file: str, count: int = 3, interruptions: int = 0) -> list[int]:
    """Steps whose results are persisted: a rerun skips those that are done.

    Its attempt n waits in step n to be interrupted, unless it has been often enough; n is 1 at
    first, and step 0 the first.
    """
    note(file, "start")
    done = []
    for number in range(count):
        done.append(step(number, file, interruptions))
        note(file, f"stored {number}")
    return done


@flow
def waits(file: str, interruptions: int, seconds: float = 1.0, gated: bool = False) -> str:
    """Waits to be interrupted in its first attempts, then takes `seconds`.

    `gated`: instead of that it waits until there is a file of the same name with `.open` added.
    """
    start = note(file, "start")
    while gated and start > interruptions and not Path(f"{file}.open").exists():
        sleep(0.2)
    sleep(UNTIL_INTERRUPTED if start <= interruptions else seconds)
    return f"done at start {start}"


@flow
def idles(seconds: float = 45.0) -> None:
    """Takes its time, and needs no parameters: something for a drill."""
    sleep(seconds)


@flow(retries=1)
def inner(file: str) -> None:
    """Waits to be interrupted at its first start, fails at its second, and then succeeds."""
    note(file, "inner")
    starts = Path(file).read_text().splitlines().count("inner")
    if starts == 1:
        sleep(UNTIL_INTERRUPTED)
    if starts == 2:
        raise ValueError("failing at start 2")


@flow
def calls(file: str) -> None:
    """Calls a subflow, which runs in the same process."""
    note(file, "start")
    inner(file)


@flow(retries=2)
def fails(file: str, interruptions: int, failures: int) -> str:
    """Waits to be interrupted, then fails of its own, then succeeds."""
    start = note(file, "start")
    if start <= interruptions:
        sleep(UNTIL_INTERRUPTED)
    if start <= interruptions + failures:
        raise ValueError(f"failing at start {start}")
    return f"done at start {start}"


def is_crashed(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a task failed of a child's Crashed: such a child may be rescued yet."""
    return isinstance(state.result(raise_on_failure=False), CrashedRun)


@task(retries=60, retry_delay_seconds=2, retry_condition_fn=is_crashed)
def child_run(file: str, **fields: Any) -> str:
    """Start another deployment's run, or find it again by its key; note what it came to."""
    child: Any = run_deployment("waits/e2e", poll_interval=1, **fields)
    note(file, f"child {child.id} {child.state.type.value}")
    if child.state.is_crashed():
        raise CrashedRun(child.state.message)
    return str(child.state.name)


@flow
def parent(file: str, child: dict[str, Any]) -> str:
    """Waits for the final result of another deployment's run, whose `child` is what it is given."""
    return str(child_run(file, idempotency_key=f"{flow_run.id}-child", **child))


@flow
def pauses(file: str) -> None:
    """Asks a person, in its process: it blocks there until it is resumed."""
    note(file, "start")
    pause_flow_run(timeout=600, poll_interval=1)
    note(file, "resumed")


@flow
def suspends(file: str) -> None:
    """Asks a person, and leaves; it takes its time to go."""
    note(file, "start")
    try:
        suspend_flow_run(timeout=600)
    except BaseException:
        sleep(UNTIL_INTERRUPTED)
        raise
    note(file, "resumed")
