"""What a flow can do after SIGTERM: each claim of `docs/safe-to-rerun.md`, by real engines.

`prefect flow-run execute` runs as a container's main process; the whole process group is sent
SIGTERM, as `tini -g` does, and when the main process ends, all that is left is killed.
"""

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import killpg
from pathlib import Path
from threading import Semaphore
from uuid import uuid4

import pytest

from localcloud.cloud import wait_for
from localcloud.processes import Supervisor, end_tree
from tests.contract.conftest import OLDEST_PYTHON
from tests.contract.real import RealPrefect
from tests.contract.stage import Stage

FLOWS = Path(__file__).with_name("warned_flows.py")
AT_ONCE = 6
"""Engines; some wait for Prefect's grace to end."""
AT_WORK = Semaphore(2)
"""Engines that start or have just been warned, on two cores: one that gets none for a second is
killed without a warning."""
START_SECONDS = 120.0
SETTLED_SECONDS = 1.0
"""After a flow began, until its engine is sure to listen."""
ANSWER_SECONDS = 1.5
"""After the SIGTERM, by when its engine has answered Prefect's supervisor, or is killed."""
PREFECTS_GRACE = 29.0
"""Prefect's supervisor kills its engine 30 s after the SIGTERM, whatever the engine does."""
STOP_TIMEOUT = 60.0

EXECUTE = "exec prefect flow-run execute"
IN_A_SHELL = "prefect flow-run execute; true"
ENGINE = "exec python -m prefect.engine"


@dataclass(frozen=True)
class Case:
    """A flow, what it notes, and the state that its run has once its container is gone."""

    flow: str
    notes: tuple[str, ...] | None = ()
    """None: it may be warned, but is not given the two seconds that it needs."""
    state: str = "RUNNING"
    saved: bool = False
    """Whether anything is in its result storage."""
    outlasts: bool = False
    """Its process lives as long as Prefect's grace, or longer."""
    parameters: Mapping[str, object] = field(default_factory=dict)
    command: str = EXECUTE
    behavior: str = "relinquish"


SLOW = {"saving": 2}
CASES = {
    "a task saves, without hooks": Case("saves", ("warned", "saved"), saved=True),
    "an async task saves": Case("saves_async", ("CancelledError", "saved"), saved=True),
    "an async task that blocks saves": Case(
        "saves_async", ("TerminationSignal", "saved"), saved=True, parameters={"blocks": True}
    ),
    "a flow finishes": Case("finishes", ("finished",), "COMPLETED"),
    "an async flow finishes": Case("finishes_async", ("finished",), "COMPLETED"),
    "a task in a thread finishes": Case(
        "part_in_a_thread", ("warned", "part done"), saved=True
    ),
    "a task in a thread is asked to save": Case("thread_with_an_event", ("saved",), saved=True),
    "a subflow, then its parent": Case("calls_a_subflow", ("inner warned", "outer warned")),
    "a program": Case("waits_for_a_program", ("child warned",)),
    "the engine as main process, for longer": Case(
        "saves", ("warned", "saved", "on_crashed"), "CRASHED",
        saved=True, outlasts=True, parameters={"saving": 33}, command=ENGINE,
    ),
    "a flow's own store": Case("writes_without_a_task", ("unreadable",), saved=True),
    "except Exception, and an upload in atexit": Case("cleans_up", ("finally", "atexit")),
    "more than 30 seconds": Case("saves", ("warned",), outlasts=True, parameters={"saving": 90}),
    "an own signal handler": Case("sets_a_handler"),
    "a signal handler in a thread": Case("sets_a_handler_in_a_thread", ("no handler",)),
    "a C call that keeps the GIL": Case("calls_c", parameters={"keeps_the_gil": True}),
    "a C call that does not return": Case("calls_c", outlasts=True),
    "a task in a process pool": Case("part_in_a_process"),
    "a shell in front": Case("saves", None, command=IN_A_SHELL, parameters=SLOW),
    "no SIGTERM behaviour": Case("saves", None, behavior="crash", parameters=SLOW),
    # Prefect stores the error.
    "an error made of it": Case("fails_of_it", ("start 1",), "FAILED", saved=True),
    "an error made of it, with retries": Case(
        "fails_of_it_and_retries", ("start 1", "start 2"), saved=True, outlasts=True
    ),
}  # fmt: skip
CASES_OF_OLD = {
    "a task saves": Case("saves", None, parameters=SLOW),
    "the engine as main process": Case("saves", ("warned", "saved"), saved=True, command=ENGINE),
    "the engine as main process, async": Case("saves_async", command=ENGINE),
}
"""Prefect 3.4 knows no `relinquish`."""


@dataclass(frozen=True)
class Ended:
    """What was seen of a run once its container was gone."""

    notes: tuple[str, ...]
    state: str
    saved: bool
    seconds: float
    """From the SIGTERM to the end of the main process."""


Warned = Mapping[str, Future[Ended]]


@contextmanager
def all_warned(stage: Stage, cases: Mapping[str, Case]) -> Iterator[Warned]:
    """Begin all cases, a few at a time: those that last first."""
    assert isinstance(stage.controls, RealPrefect)
    python = OLDEST_PYTHON if stage.is_oldest else Path(sys.executable)
    with Supervisor.open() as supervisor, ThreadPoolExecutor(AT_ONCE) as pool:
        in_order = sorted(cases, key=lambda name: not cases[name].outlasts)
        yield {n: pool.submit(warn, cases[n], stage.controls, python, supervisor) for n in in_order}


def warn(case: Case, controls: RealPrefect, python: Path, supervisor: Supervisor) -> Ended:
    """Run the flow in a container of its own, as far as processes go, and send it SIGTERM."""
    home = supervisor.folder / str(uuid4())
    (home / "tmp").mkdir(parents=True)
    notes, flow_run_id = home / "notes", start(case, controls, home / "notes")
    environment = {
        "PATH": f"{python.parent}:/usr/bin:/bin",
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "PREFECT_API_URL": controls.api_url,
        "PREFECT_API_AUTH_STRING": controls.auth_string or "",
        "PREFECT_LOCAL_STORAGE_PATH": str(home / "results"),
        "PREFECT__FLOW_RUN_ID": flow_run_id,
        "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": case.behavior,
        "DO_NOT_TRACK": "1",
    }
    marker = {"WARNED_CONTAINER": str(home)}
    command, log = ["sh", "-c", case.command], home / "log"
    with AT_WORK:
        process = supervisor.spawn(command, env=environment, cwd=home, log=log, extra_marker=marker)

        def has_begun() -> bool:
            assert process.poll() is None, log.read_text()
            return notes.exists() and "begin" in notes.read_text()

        wait_for(f"the beginning of {case.flow}", START_SECONDS, has_begun)
        time.sleep(SETTLED_SECONDS)
        warned_at = time.monotonic()
        killpg(process.pid, signal.SIGTERM)
        time.sleep(ANSWER_SECONDS)
    process.wait(STOP_TIMEOUT)
    seconds = time.monotonic() - warned_at
    end_tree(process, *marker.items())
    said = tuple(line for line in notes.read_text().splitlines() if line != "begin")
    state = controls.api.run(flow_run_id)["state_type"]
    return Ended(said, state, any((home / "results").glob("*")), seconds)


def start(case: Case, controls: RealPrefect, notes: Path) -> str:
    """Return the id of a run that a worker has picked up."""
    api = controls.api
    deployment = {
        "name": str(uuid4()),
        "flow_id": api.send("POST", "/flows/", {"name": case.flow})["id"],
        "path": str(FLOWS.parent),
        "entrypoint": f"{FLOWS.name}:{case.flow}",
    }
    id_ = api.send("POST", "/deployments/", deployment)["id"]
    flow_run_id = api.start(id_, parameters={"file": str(notes), **case.parameters})
    api.set_state(flow_run_id, {"type": "PENDING", "name": "Pending"})
    return flow_run_id


@pytest.fixture(scope="session")
def warned(stage: Stage) -> Iterator[Warned]:
    with all_warned(stage, CASES) as warned:
        yield warned


@pytest.fixture(scope="session")
def warned_of_old(stage: Stage) -> Iterator[Warned]:
    with all_warned(stage, CASES_OF_OLD) as warned:
        yield warned


@pytest.mark.parametrize("name", CASES)
def test_what_a_flow_can_do_after_sigterm_is_as_documented(warned: Warned, name: str) -> None:
    assert_ended_as_documented(warned[name].result(), CASES[name])


@pytest.mark.parametrize("name", CASES_OF_OLD)
def test_an_old_engine_leaves_no_time_unless_it_is_the_main_process(
    warned_of_old: Warned, name: str
) -> None:
    assert_ended_as_documented(warned_of_old[name].result(), CASES_OF_OLD[name])


def assert_ended_as_documented(ended: Ended, case: Case) -> None:
    assert ended.saved is case.saved, ended
    assert "saved" not in ended.notes if case.notes is None else ended.notes == case.notes, ended
    assert ended.state == case.state or case.notes is None or case.command == ENGINE, ended
    assert (ended.seconds > PREFECTS_GRACE) is case.outlasts, ended
