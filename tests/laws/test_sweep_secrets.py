"""Canary secrets in all that `sweep` meets, and none of them in anything that it writes.

In process, through each of its repairs; the whole function is in `tests/unit/test_secrets_nowhere`.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import pytest

from chalicelib.adapters.log import JsonLog
from chalicelib.core.run import StateType
from chalicelib.core.situation import Mode, Policy
from chalicelib.core.task import FLOW_RUN_ID_TAG, NO_CAPACITY_REASON, Task, parse_task
from chalicelib.functions.sweep import sweep
from tests.laws.universe import Befalls, Fault, Tables, Universe
from tests.make import NOW, make_event
from tests.unit.canaries import Canaries
from tests.unit.lambda_bench import detail_with

OUT_OF_MEMORY = {"stop_code": "EssentialContainerExited", "stopped_reason": "OutOfMemoryError"}
MINUTES = 10 * 60


@dataclass
class Story:
    """A run full of canaries, in a universe of its own."""

    universe: Universe
    canaries: Canaries
    run_id: UUID
    task: Task

    @property
    def state(self) -> StateType:
        return self.universe.prefect.runs[self.run_id].state.type


def begun(tables: Tables, *tags: str, mode: Mode = Mode.RESCUE) -> Story:
    """The run runs; ECS describes its task with all that whoever runs a task can put on it."""
    universe, canaries = tables.universe(Policy(mode=mode)), Canaries()
    plant, prefect = canaries.plant, universe.prefect
    run_id = prefect.create_run(
        tags=(*tags, plant("a run's tag")),
        job_variables={"env": {"TOKEN": plant("a job variable")}, plant("its name"): 1},
    )
    task = universe.start(run_id)
    run = prefect.runs[run_id]
    run.name, run.labels = plant("the run's name"), {"team": plant("a label")}
    run.states[0] = replace(run.states[0], message=plant("an older state's message"))
    tag = {"key": FLOW_RUN_ID_TAG, "value": str(run_id)}
    detail = {**detail_with(canaries, run_id), "taskArn": task.arn, "tags": [tag]}
    described = parse_task(make_event(detail)["detail"])
    assert isinstance(described, Task)
    known = replace(
        task,
        flow_run_id=described.flow_run_id,
        container_reason=described.container_reason,
        architecture=described.architecture,
    )
    universe.tasks[task.arn] = known
    return Story(universe, canaries, run_id, known)


def nobody_told(story: Story) -> None:
    story.universe.stops(story.task)


def out_of_memory(story: Story) -> None:
    child = story.universe.prefect.create_child(story.run_id)
    story.universe.prefect.runs[child].name = story.canaries.plant("the child's name")
    story.universe.stops(story.task, **OUT_OF_MEMORY)


def being_cancelled(story: Story) -> None:
    story.universe.prefect.cancel(story.run_id)
    story.universe.stops(story.task, **OUT_OF_MEMORY)


def refused_by_spot(story: Story) -> None:
    universe = story.universe
    del universe.tasks[story.task.arn]
    secret = story.canaries.plant("what a worker said")
    universe.prefect.crash(story.run_id, f"{NO_CAPACITY_REASON}: {secret}")


def left_parked(story: Story) -> None:
    universe = story.universe
    universe.stops(story.task)
    event = universe.event(universe.tasks[story.task.arn], lastStatus="STOPPED")
    for call in range(20):
        universe.handle(event, Fault(Befalls.DIES_AFTER, call))
        universe.passes(60)
        if story.state is StateType.SCHEDULED:
            return
    raise AssertionError("it was never parked")


def thrown_back(story: Story) -> None:
    universe = story.universe
    universe.deliver(universe.exits(story.task)[1])
    universe.prefect.crash(story.run_id, story.canaries.plant("what an automation said"))


REPAIRS: dict[str, tuple[Callable[[Story], None], StateType]] = {
    "nobody told": (nobody_told, StateType.SCHEDULED),
    "out of memory, with a subflow": (out_of_memory, StateType.CRASHED),
    "being cancelled": (being_cancelled, StateType.CANCELLED),
    "refused by Spot": (refused_by_spot, StateType.SCHEDULED),
    "left parked": (left_parked, StateType.SCHEDULED),
    "thrown back": (thrown_back, StateType.SCHEDULED),
}


CASES = [
    pytest.param(name, tag, mode, id=f"{name}, {tag}, {mode}")
    for name in REPAIRS
    for tag, mode in (
        ("spot-retries:0", Mode.RESCUE),
        ("team:sales", Mode.RESCUE),
        ("spot:never-rerun", Mode.RESCUE),
        ("team:sales", Mode.OBSERVE),
    )
    if name != "left parked" or (tag, mode) == ("spot-retries:0", Mode.RESCUE)
]


@pytest.mark.parametrize(("name", "tag", "mode"), CASES)
def test_no_repair_tells_a_secret(tables: Tables, name: str, tag: str, mode: Mode) -> None:
    misfortune, ends = REPAIRS[name]
    story = begun(tables, tag, mode=mode)
    misfortune(story)
    lines = io.StringIO()
    logger = JsonLog("DEBUG", lambda: NOW, lines)
    before = list(story.universe.prefect.runs[story.run_id].states)
    summaries = []
    for _ in range(2):
        story.universe.passes(MINUTES)
        summaries.append(sweep(replace(story.universe.world(), log=logger), {}).summary)
    if mode is Mode.RESCUE and tag != "spot:never-rerun":
        assert story.state is ends
    written = what_was_written(story, before)
    assert "swept" in lines.getvalue()
    assert story.canaries.found_in(f"{lines.getvalue()}\n{written}\n{summaries}") == []


def what_was_written(story: Story, before: Sequence[object]) -> str:
    """All that `sweep` wrote; the run's own name stays its own, in its own events."""
    universe = story.universe
    prefect = universe.prefect
    states = [state for run in prefect.runs.values() for state in run.states if state not in before]
    children = [run.states[:2] for run in prefect.runs.values() if run.id != story.run_id]
    events = [replace(event, flow_run_name="") for event in prefect.events.values()]
    labels = {k: v for k, v in prefect.runs[story.run_id].labels.items() if k != "team"}
    key = {"pk": {"S": f"run#{story.run_id}"}}
    item = universe.dynamodb.get_item(TableName=universe.table, Key=key)
    said = [prefect.log_lines, prefect.artifacts, events, labels, states, children, item]
    return "\n".join(map(repr, said))
