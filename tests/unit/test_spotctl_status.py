"""What `spotctl status` makes of what it finds: a row per judgement."""

from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

import pytest

from chalicelib.core.model.policy import Mode
from spotctl.prefect import Deployment, Worker, WorkPool
from spotctl.provisioning import Provisioned
from spotctl.rows import Exit, Row, State, exit_of, failed, ok, warning
from spotctl.status import (
    deployments,
    handler,
    observers,
    prefect_side,
    provisioned,
    stack,
)
from tests.make import NOW, seconds

QUEUE = "arn:aws:sqs:us-east-1:111122223333:prefect-spot-dev-failures"
SIGTERM = "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"
OK, WARNING, FAILED = State.OK, State.WARNING, State.FAILED


def stack_rows(**changes: Any) -> list[Row]:
    ordinary = stack.Found(
        stack="prefect-spot-dev",
        stack_status="CREATE_COMPLETE",
        stack_reason="",
        clusters=(stack.Cluster("spot", "ACTIVE", ("FARGATE", "FARGATE_SPOT")),),
        service=stack.Service(1, 1, "COMPLETED"),
        is_rescue_only=False,
    )
    return stack.rows(replace(ordinary, **changes))


def cluster_rows(*cluster: Any, use_spot: bool = True) -> list[Row]:
    return stack_rows(clusters=(stack.Cluster("spot", *cluster),), use_spot=use_spot)


def service_rows(*service: Any) -> list[Row]:
    return stack_rows(service=stack.Service(*service))


def handler_rows(**changes: Any) -> list[Row]:
    ordinary = handler.Found(
        functions=(make_function(),),
        queue=handler.Queue(QUEUE, waiting=0, taken=0),
        queue_name="failures",
        swept_at=NOW - seconds(120),
        sweep_is_finished=True,
        now=NOW,
    )
    return handler.rows(replace(ordinary, **changes))


def make_function(**changes: Any) -> handler.Function:
    rule = handler.Rule("dev-react-event", is_enabled=True, dead_letter_arn=QUEUE)
    ordinary = handler.Function("react", "Active", rules=(rule,), failures_to=QUEUE)
    return replace(ordinary, **changes)


def function_rows(**changes: Any) -> list[Row]:
    return handler_rows(functions=(make_function(**changes),))


def rule_rows(*, is_enabled: bool = True, dead_letter_arn: str = "") -> list[Row]:
    return function_rows(rules=(handler.Rule("r", is_enabled, dead_letter_arn),))


def sweep_rows(ago: float, *, is_finished: bool = True) -> list[Row]:
    return handler_rows(swept_at=NOW - seconds(ago), sweep_is_finished=is_finished)


def make_template(launch_type: str = "FARGATE_SPOT", **container: Any) -> dict[str, Any]:
    ordinary = {
        "name": "{{ container_name }}",
        "stopTimeout": 120,
        "environment": [{"name": SIGTERM, "value": "relinquish"}],
    }
    return {
        "job_configuration": {
            "task_definition": {"containerDefinitions": [{**ordinary, **container}]},
            "task_run_request": {"launchType": "{{ launch_type }}"},
        },
        "variables": {
            "properties": {
                "launch_type": {"default": launch_type},
                "cluster": {"default": "prefect-spot-dev"},
                "image": {"default": "prefecthq/prefect:3-latest"},
            }
        },
    }


def prefect_rows(**changes: Any) -> list[Row]:
    ordinary = prefect_side.Found(
        parameter=prefect_side.Parameter("/key", "PREFECT_API_KEY_PARAMETER", "SecureString"),
        api_url="http://prefect/api",
        pool_name="spot",
        now=NOW,
        is_rescue_only=False,
        version="3.8.8",
        pool=WorkPool("spot", "ecs", "READY", is_paused=False, template=make_template()),
        workers=(Worker("ECSWorker 1", True, NOW - seconds(7), "3.8.8"),),
    )
    return prefect_side.rows(replace(ordinary, **changes))


def parameter_rows(kind: str = "") -> list[Row]:
    return prefect_rows(parameter=prefect_side.Parameter("/key", "NAME", kind))


def pool_rows(use_spot: bool = True, **changes: Any) -> list[Row]:
    ordinary = WorkPool("spot", "ecs", "READY", is_paused=False, template=make_template())
    return prefect_rows(pool=replace(ordinary, **changes), use_spot=use_spot)


def template_rows(**container: Any) -> list[Row]:
    return pool_rows(template=make_template(**container))


def without_launch_type() -> list[Row]:
    template = make_template()
    template["job_configuration"]["task_run_request"]["launchType"] = "FARGATE_SPOT"
    return pool_rows(template=template)


GONE: Final = Worker("ECSWorker 1", False, NOW - seconds(600))
LATE: Final = handler.LATE_SWEEP.total_seconds() + 1

JUDGED: Final[dict[str, tuple[list[Row], str, State, str]]] = {
    "no stack": (stack_rows(stack_status=""), "stack", FAILED, "there is no stack"),
    "updated": (stack_rows(stack_status="UPDATE_COMPLETE"), "stack", OK, ""),
    "updating": (stack_rows(stack_status="UPDATE_IN_PROGRESS"), "stack", WARNING, ""),
    "undone": (stack_rows(stack_status="UPDATE_ROLLBACK_COMPLETE"), "stack", WARNING, "undone"),
    "never came up": (stack_rows(stack_status="ROLLBACK_COMPLETE"), "stack", FAILED, ""),
    "stuck": (stack_rows(stack_status="UPDATE_ROLLBACK_FAILED"), "stack", FAILED, ""),
    "unknown cluster": (cluster_rows(), "cluster spot", FAILED, "does not know it"),
    "inactive": (cluster_rows("INACTIVE"), "cluster spot", FAILED, "INACTIVE"),
    "no Spot": (cluster_rows("ACTIVE", ("FARGATE",)), "cluster spot", FAILED, "lacks the capacity"),
    "no Spot, as meant": (
        cluster_rows("ACTIVE", ("FARGATE",), use_spot=False), "cluster spot", OK, "",
    ),
    "no service": (stack_rows(service=None), "worker service", FAILED, "no service"),
    "nothing runs": (service_rows(0, 1, "", "no place"), "worker service", FAILED, "no place"),
    "scaled to 0": (service_rows(0, 0, "COMPLETED"), "worker service", FAILED, "scaled to 0"),
    "rollout failed": (service_rows(1, 1, "FAILED"), "worker service", FAILED, "rollout failed"),
    "rolling out": (service_rows(1, 1, "IN_PROGRESS"), "worker service", WARNING, "in_progress"),
    "not deployed": (function_rows(status=""), "function react", FAILED, "not deployed"),
    "broken": (function_rows(status="Failed"), "function react", FAILED, "Failed"),
    "held": (function_rows(concurrency=0), "function react", FAILED, "kept from"),
    "no destination": (function_rows(failures_to=""), "function react", WARNING, "is lost"),
    "other destination": (function_rows(failures_to="x"), "function react", WARNING, "goes to x"),
    "rule disabled": (rule_rows(is_enabled=False), "rule r", FAILED, "disabled"),
    "no dead letters": (rule_rows(), "rule r", WARNING, "no dead-letter queue"),
    "no sweep": (handler_rows(swept_at=None), "last sweep", WARNING, "none"),
    "out of time": (sweep_rows(60, is_finished=False), "last sweep", WARNING, "its time ended"),
    "a late sweep": (sweep_rows(LATE), "last sweep", FAILED, "20 min ago"),
    "no credential": (prefect_rows(parameter=None), "credential", OK, "none is set"),
    "credential missing": (parameter_rows(), "credential", FAILED, "does not exist"),
    "credential plain": (parameter_rows("String"), "credential", FAILED, "plain String"),
    "no pool": (prefect_rows(pool=None), "work pool spot", FAILED, "does not know it"),
    "another type": (pool_rows(type="docker"), "work pool spot", FAILED, "of type docker"),
    "paused": (pool_rows(is_paused=True), "work pool spot", FAILED, "paused"),
    "not ready": (pool_rows(status="NOT_READY"), "work pool spot", WARNING, "no worker"),
    "no stopTimeout": (template_rows(stopTimeout=None), "pool: stopTimeout", WARNING, "30 s"),
    "no SIGTERM": (template_rows(environment=[]), "pool: SIGTERM behaviour", WARNING, "rescued"),
    "on demand": (template_rows(launch_type="FARGATE"), "pool: capacity", WARNING, "on FARGATE"),
    "cannot move": (without_launch_type(), "pool: launch type", FAILED, "cannot be moved"),
    "worker gone": (prefect_rows(workers=(GONE,)), "worker", FAILED, "last heartbeat 10 min ago"),
    "planned": (provisioned.rows(Provisioned("ready")), "provision", OK, "reach Prefect"),
    "to do": (provisioned.rows(Provisioned("pending", steps=("x",))), "provision", WARNING, "x"),
    "waiting": (provisioned.rows(Provisioned("updating")), "provision", WARNING, "CloudFormation"),
    "a problem": (provisioned.rows(Provisioned("", problems=("y",))), "provision", FAILED, "y"),
}  # fmt: skip


def the(part: str, rows: list[Row]) -> Row:
    return [row for row in rows if row.part == part][-1]


@pytest.mark.parametrize(("rows", "part", "state", "said"), JUDGED.values(), ids=JUDGED)
def test_a_part_is_judged_and_what_is_not_ok_has_its_next_step(
    rows: list[Row], part: str, state: State, said: str
) -> None:
    row = the(part, rows)
    assert row.state is state
    assert said in row.found
    assert bool(row.next_step) is (state is not State.OK)


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        pytest.param([], Exit.OK, id="nothing"),
        pytest.param([ok("a", ""), warning("b", "", "")], Exit.OK, id="a warning fails nothing"),
        pytest.param([ok("a", ""), failed("b", "", "")], Exit.FAILED, id="one failed"),
    ],
)
def test_the_exit_code_is_that_of_the_worst_row(rows: list[Row], code: Exit) -> None:
    assert exit_of(rows) is code


def test_what_is_as_it_should_be_is_all_ok() -> None:
    rows = [*stack_rows(), *handler_rows(), *prefect_rows()]
    assert {row.state for row in rows} == {State.OK}
    assert the("last sweep", rows).found == "2 min ago, it saw all runs"
    assert the("worker", rows).found == "1 online, Prefect 3.8.8; last heartbeat 7 s ago"


def test_what_is_somebody_elses_is_not_looked_for_and_not_deployed() -> None:
    rows = stack_rows(is_rescue_only=True, service=None)
    assert "worker service" not in {row.part for row in rows}
    rows = prefect_rows(
        pool=WorkPool("spot", "ecs", "READY", False, make_template(stopTimeout=30)),
        is_rescue_only=True,
    )
    assert the("pool: stopTimeout", rows).next_step.startswith("edit the pool's base job template")
    on_demand = pool_rows(use_spot=False, template=make_template("FARGATE"))
    assert "pool: capacity" not in {row.part for row in on_demand}


def test_without_a_queue_a_missing_destination_is_no_match() -> None:
    """Two things that are not there are not the same thing."""
    function = make_function(failures_to="", rules=(handler.Rule("r", is_enabled=True),))
    rows = handler_rows(functions=(function,), queue=None)
    assert the("function react", rows).state is State.WARNING
    assert the("rule r", rows).state is State.WARNING
    assert the("failure queue", rows).state is State.FAILED
    assert the("function react", function_rows(rules=())).found == "no rule wakes it"


def test_waiting_failures_are_counted() -> None:
    row = the("failure queue", handler_rows(queue=handler.Queue(QUEUE, waiting=3, taken=1)))
    assert row.state is State.WARNING
    assert row.found == "3 events could not be handled, 1 more are being redriven"
    assert "spotctl redrive" in row.next_step


def test_a_prefect_that_does_not_answer_is_one_failed_row() -> None:
    rows = prefect_rows(problem="no answer", next_step="check the URL", pool=None)
    assert [(row.part, row.state) for row in rows] == [
        ("credential", State.OK),
        ("Prefect from here", State.FAILED),
    ]
    assert "were not looked at" in rows[-1].found
    assert rows[-1].next_step == "check the URL"


def make_deployments(*variables: dict[str, Any], **changes: Any) -> deployments.Found:
    ordinary = deployments.Found(
        deployments=tuple(
            Deployment(uuid4(), f"etl/{number}", own) for number, own in enumerate(variables)
        ),
        template=make_template(),
        definitions={},
        clusters=("prefect-spot-dev",),
        mode=Mode.RESCUE,
    )
    return replace(ordinary, **changes)


SPOT_ALONE: Final = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
MIXED: Final = [*SPOT_ALONE, {"capacityProvider": "FARGATE", "weight": 1, "base": 1}]
OUR_CLUSTER: Final = "arn:aws:ecs:us-east-1:111122223333:cluster/prefect-spot-dev"


@pytest.mark.parametrize(
    ("variables", "flaw"),
    [
        pytest.param({}, "", id="as the pool has it"),
        pytest.param({"launch_type": "FARGATE"}, "on demand", id="on demand"),
        pytest.param({"launch_type": "EC2"}, "EC2 is never rescued", id="EC2"),
        pytest.param({"capacity_provider_strategy": MIXED}, "wins over launch_type", id="mixed"),
        pytest.param({"capacity_provider_strategy": SPOT_ALONE}, "", id="Spot alone"),
        pytest.param({"cluster": "others"}, "nobody watches", id="another cluster"),
        pytest.param({"cluster": OUR_CLUSTER}, "", id="our cluster, by its ARN"),
        pytest.param({"env": {SIGTERM: "reschedule"}}, SIGTERM, id="its own SIGTERM behaviour"),
        pytest.param({"env": {SIGTERM: "relinquish"}}, "", id="the same SIGTERM behaviour"),
        pytest.param({"image": "prefecthq/prefect:3.8.0-python3.12"}, "older", id="old image"),
        pytest.param({"image": "prefecthq/prefect:2-latest"}, "older", id="old major version"),
        pytest.param({"image": "prefecthq/prefect:3.8.1"}, "", id="first clean image"),
        pytest.param({"image": "prefecthq/prefect:3.8-python3.12"}, "", id="maybe new enough"),
        pytest.param({"image": "prefecthq/prefect:3.10.0"}, "", id="new image"),
        pytest.param({"task_definition_arn": "mine:1"}, "does not know", id="unknown definition"),
    ],
)
def test_a_deployment_that_goes_past_the_pool_is_named(
    variables: dict[str, Any], flaw: str
) -> None:
    rows = deployments.rows(make_deployments(variables))
    assert rows[0].found == f"{int(not flaw)} of 1 would be rescued as well as can be"
    assert len(rows) == (2 if flaw else 1)
    for row in rows[1:]:
        assert flaw in row.found
        assert (row.state, bool(row.next_step)) == (State.WARNING, True)


@pytest.mark.parametrize(
    ("container", "flaws"),
    [
        ({"stopTimeout": 120, "environment": [{"name": SIGTERM, "value": "relinquish"}]}, []),
        ({"stopTimeout": 60, "environment": []}, ["gives 60 s to stop", "does not set " + SIGTERM]),
        ({}, ["gives 30 s to stop", "does not set " + SIGTERM]),
    ],
    ids=["complete", "short", "bare"],
)
def test_a_task_definition_of_its_own_is_read(container: dict[str, Any], flaws: list[str]) -> None:
    definitions = {"mine:1": prefect_side.container_of(container)}
    found = make_deployments({"task_definition_arn": "mine:1"}, definitions=definitions)
    told = [flaw for flaw, _ in deployments.flaws_of(found.deployments[0], found)]
    assert len(told) == len(flaws)
    assert all(part in said for part, said in zip(flaws, told, strict=True))


def test_tags_that_keep_a_deployment_from_being_rerun_are_named() -> None:
    found = make_deployments({}, mode=Mode.OPT_IN)
    [deployment] = found.deployments
    tagged = replace(found, deployments=(replace(deployment, tags=("spot:rerun",)),))
    never = replace(deployment, tags=("spot:rerun", "spot:never-rerun"))
    assert "opt-in" in deployments.rows(found)[1].found
    assert len(deployments.rows(tagged)) == 1
    assert "spot:never-rerun" in deployments.rows(replace(found, deployments=(never,)))[1].found


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("docker.io/prefecthq/prefect:2.19.4", (2, 19, 4)),
        ("prefecthq/prefect:3.7-python3.11", (3, 7)),
        ("prefecthq/prefect:3-latest", None),
        ("prefecthq/prefect:3-python3.12", (3,)),
        ("prefecthq/prefect:latest", None),
        ("prefecthq/prefect@sha256:0123", None),
        ("123456789012.dkr.ecr.us-east-1.amazonaws.com/etl:1.2.3", None),
    ],
)
def test_a_version_is_read_from_prefects_own_tags_only(
    image: str, version: tuple[int, ...] | None
) -> None:
    assert deployments.version_of(image) == version


def test_observers_are_known_by_their_queues_name_and_warned_of() -> None:
    queues = ("prefect-ecs-tasks-events", "etl-ecs-events", "etl-ecs-events-dlq", "orders")
    assert [observers.is_an_observers(queue) for queue in queues] == [True, True, False, False]
    [row] = observers.rows((observers.Observer("etl-ecs-task-events", "etl-ecs-events"),))
    assert row.state is State.WARNING
    assert "aws events disable-rule --name etl-ecs-task-events" in row.next_step
    assert observers.rows(())[0].state is State.OK
