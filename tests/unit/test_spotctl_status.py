"""What `spotctl status` makes of what it finds: a row per judgement."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from chalicelib.core.situation import Mode
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


def states(rows: list[Row]) -> dict[str, State]:
    return {row.part: row.state for row in rows}


def the(part: str, rows: list[Row]) -> Row:
    return next(row for row in rows if row.part == part)


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


def make_stack(**changes: Any) -> stack.Found:
    ordinary = stack.Found(
        stack="prefect-spot-dev",
        stack_status="CREATE_COMPLETE",
        stack_reason="",
        clusters=(stack.Cluster("spot", "ACTIVE", ("FARGATE", "FARGATE_SPOT")),),
        service=stack.Service(1, 1, "COMPLETED"),
        is_rescue_only=False,
    )
    return replace(ordinary, **changes)


def test_a_stack_as_it_should_be_is_all_ok() -> None:
    assert set(states(stack.rows(make_stack())).values()) == {State.OK}


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("", State.FAILED),
        ("UPDATE_COMPLETE", State.OK),
        ("UPDATE_IN_PROGRESS", State.WARNING),
        ("UPDATE_ROLLBACK_IN_PROGRESS", State.WARNING),
        ("UPDATE_ROLLBACK_COMPLETE", State.WARNING),
        ("ROLLBACK_COMPLETE", State.FAILED),
        ("UPDATE_ROLLBACK_FAILED", State.FAILED),
        ("DELETE_FAILED", State.FAILED),
    ],
)
def test_a_stack_stands_by_its_status(status: str, state: State) -> None:
    row = the("stack", stack.rows(make_stack(stack_status=status)))
    assert row.state is state
    assert bool(row.next_step) is (state is not State.OK)


@pytest.mark.parametrize(
    ("cluster", "use_spot", "said"),
    [
        (stack.Cluster("spot"), True, "does not know it"),
        (stack.Cluster("spot", "INACTIVE"), True, "INACTIVE"),
        (stack.Cluster("spot", "ACTIVE", ("FARGATE",)), True, "lacks the capacity provider"),
        (stack.Cluster("spot", "ACTIVE", ("FARGATE",)), False, ""),
    ],
    ids=["unknown", "inactive", "without Spot", "without Spot, as it is meant"],
)
def test_a_cluster_has_to_be_there_with_its_providers(
    cluster: stack.Cluster, use_spot: bool, said: str
) -> None:
    row = the("cluster spot", stack.rows(make_stack(clusters=(cluster,), use_spot=use_spot)))
    assert (row.state is State.FAILED) is bool(said)
    assert said in row.found


@pytest.mark.parametrize(
    ("service", "state"),
    [
        (None, State.FAILED),
        (stack.Service(0, 1, "IN_PROGRESS", "(service worker) was unable to place"), State.FAILED),
        (stack.Service(0, 0, "COMPLETED"), State.FAILED),
        (stack.Service(1, 1, "FAILED", "tasks failed to start"), State.FAILED),
        (stack.Service(1, 1, "IN_PROGRESS"), State.WARNING),
        (stack.Service(2, 2, "COMPLETED"), State.OK),
    ],
)
def test_the_worker_has_to_run(service: stack.Service | None, state: State) -> None:
    assert the("worker service", stack.rows(make_stack(service=service))).state is state


def test_somebody_elses_worker_is_not_looked_for() -> None:
    rows = stack.rows(make_stack(is_rescue_only=True, service=None))
    assert "worker service" not in states(rows)


def make_function(**changes: Any) -> handler.Function:
    rule = handler.Rule("dev-react-event", is_enabled=True, dead_letter_arn=QUEUE)
    ordinary = handler.Function("react", "Active", rules=(rule,), failures_to=QUEUE)
    return replace(ordinary, **changes)


def make_handler(**changes: Any) -> handler.Found:
    ordinary = handler.Found(
        functions=(make_function(),),
        queue=handler.Queue("failures", QUEUE, waiting=0, taken=0),
        queue_name="failures",
        sweep=handler.Sweep(NOW - seconds(120), is_finished=True),
        now=NOW,
    )
    return replace(ordinary, **changes)


def test_a_handler_as_it_should_be_is_all_ok() -> None:
    rows = handler.rows(make_handler())
    assert states(rows) == {
        "function react": State.OK,
        "rule dev-react-event": State.OK,
        "failure queue": State.OK,
        "last sweep": State.OK,
    }
    assert the("last sweep", rows).found == "2 min ago, it saw all runs"


@pytest.mark.parametrize(
    ("function", "part", "state", "said"),
    [
        pytest.param(
            handler.Function("react"), "function react", State.FAILED, "not deployed", id="missing"
        ),
        pytest.param(
            make_function(status="Failed"), "function react", State.FAILED, "Failed", id="broken"
        ),
        pytest.param(
            make_function(concurrency=0), "function react", State.FAILED, "kept from", id="held"
        ),
        pytest.param(
            make_function(rules=()), "function react", State.FAILED, "no rule", id="without rule"
        ),
        pytest.param(
            make_function(failures_to=""),
            "function react",
            State.WARNING,
            "is lost",
            id="after a deploy: no destination",
        ),
        pytest.param(
            make_function(failures_to="arn:aws:sqs:us-east-1:111122223333:others"),
            "function react",
            State.WARNING,
            "others",
            id="another destination",
        ),
        pytest.param(
            make_function(rules=(handler.Rule("r", is_enabled=False, dead_letter_arn=QUEUE),)),
            "rule r",
            State.FAILED,
            "disabled",
            id="rule disabled",
        ),
        pytest.param(
            make_function(rules=(handler.Rule("r", is_enabled=True),)),
            "rule r",
            State.WARNING,
            "no dead-letter queue",
            id="after a deploy: no dead-letter queue",
        ),
    ],
)
def test_a_function_has_to_hear_and_to_lose_nothing(
    function: handler.Function, part: str, state: State, said: str
) -> None:
    rows = [r for r in handler.rows(make_handler(functions=(function,))) if r.part == part]
    row = rows[-1]
    assert row.state is state
    assert said in row.found
    assert row.next_step


def test_without_a_queue_a_missing_destination_is_no_match() -> None:
    """Two things that are not there are not the same thing."""
    function = make_function(failures_to="", rules=(handler.Rule("r", is_enabled=True),))
    rows = handler.rows(make_handler(functions=(function,), queue=None))
    assert the("function react", rows).state is State.WARNING
    assert the("rule r", rows).state is State.WARNING
    assert the("failure queue", rows).state is State.FAILED


def test_waiting_failures_are_counted() -> None:
    queue = handler.Queue("failures", QUEUE, waiting=3, taken=1)
    row = the("failure queue", handler.rows(make_handler(queue=queue)))
    assert row.state is State.WARNING
    assert row.found == "3 events could not be handled, 1 more are being redriven"
    assert "spotctl redrive" in row.next_step


@pytest.mark.parametrize(
    ("sweep", "state"),
    [
        (None, State.WARNING),
        (handler.Sweep(NOW - seconds(60), is_finished=False), State.WARNING),
        (handler.Sweep(NOW - handler.LATE_SWEEP - seconds(1), is_finished=True), State.FAILED),
    ],
    ids=["never", "out of time", "late"],
)
def test_a_sweep_has_to_come(sweep: handler.Sweep | None, state: State) -> None:
    assert the("last sweep", handler.rows(make_handler(sweep=sweep))).state is state


def make_template(**container: Any) -> dict[str, Any]:
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
                "launch_type": {"default": "FARGATE_SPOT"},
                "cluster": {"default": "prefect-spot-dev"},
                "image": {"default": "prefecthq/prefect:3-latest"},
            }
        },
    }


def make_prefect(**changes: Any) -> prefect_side.Found:
    parameter = prefect_side.Parameter("/key", "PREFECT_API_KEY_PARAMETER", "SecureString")
    ordinary = prefect_side.Found(
        parameter=parameter,
        api_url="http://prefect/api",
        pool_name="spot",
        now=NOW,
        is_rescue_only=False,
        version="3.8.8",
        pool=WorkPool("spot", "ecs", "READY", is_paused=False, template=make_template()),
        workers=(Worker("ECSWorker 1", "ONLINE", NOW - seconds(7), "3.8.8"),),
    )
    return replace(ordinary, **changes)


def make_pool(**changes: Any) -> WorkPool:
    pool = make_prefect().pool
    assert pool is not None
    return replace(pool, **changes)


def test_a_prefect_as_it_should_be_is_all_ok() -> None:
    rows = prefect_side.rows(make_prefect())
    assert set(states(rows).values()) == {State.OK}
    assert the("worker", rows).found == "1 online, Prefect 3.8.8; last heartbeat 7 s ago"


@pytest.mark.parametrize(
    ("parameter", "state", "said"),
    [
        (None, State.OK, "none is set"),
        (prefect_side.Parameter("/key", "NAME"), State.FAILED, "does not exist"),
        (prefect_side.Parameter("/key", "NAME", "String"), State.FAILED, "plain String"),
    ],
    ids=["none set", "missing", "plain"],
)
def test_the_credential_has_to_be_a_secret(
    parameter: prefect_side.Parameter | None, state: State, said: str
) -> None:
    row = the("credential", prefect_side.rows(make_prefect(parameter=parameter)))
    assert row.state is state
    assert said in row.found


def test_a_prefect_that_does_not_answer_is_one_failed_row() -> None:
    rows = prefect_side.rows(
        make_prefect(problem="no answer", next_step="check the URL", pool=None)
    )
    assert states(rows) == {"credential": State.OK, "Prefect from here": State.FAILED}
    assert "were not looked at" in rows[-1].found
    assert rows[-1].next_step == "check the URL"


@pytest.mark.parametrize(
    ("pool", "state", "said"),
    [
        (None, State.FAILED, "does not know it"),
        (make_pool(type="docker"), State.FAILED, "of type docker"),
        (make_pool(is_paused=True), State.FAILED, "paused"),
        (make_pool(status="NOT_READY"), State.WARNING, "no worker"),
    ],
    ids=["missing", "another type", "paused", "not ready"],
)
def test_the_pool_has_to_be_ecs_and_at_work(pool: WorkPool | None, state: State, said: str) -> None:
    row = the("work pool spot", prefect_side.rows(make_prefect(pool=pool)))
    assert row.state is state
    assert said in row.found


@pytest.mark.parametrize(
    ("container", "part"),
    [
        ({"stopTimeout": None}, "pool: stopTimeout"),
        ({"stopTimeout": 30}, "pool: stopTimeout"),
        ({"environment": []}, "pool: SIGTERM behaviour"),
        ({"environment": [{"name": SIGTERM, "value": "reschedule"}]}, "pool: SIGTERM behaviour"),
    ],
)
def test_a_template_that_makes_a_rescue_worse_is_a_warning(
    container: dict[str, Any], part: str
) -> None:
    pool = make_pool(template=make_template(**container))
    rows = prefect_side.rows(make_prefect(pool=pool, is_rescue_only=True))
    assert the(part, rows).state is State.WARNING
    assert the(part, rows).next_step.startswith("edit the pool's base job template")
    assert "pool: template" not in states(rows)


def test_a_template_without_the_launch_type_cannot_move_a_run() -> None:
    template = make_template()
    template["job_configuration"]["task_run_request"]["launchType"] = "FARGATE_SPOT"
    rows = prefect_side.rows(make_prefect(pool=make_pool(template=template)))
    assert the("pool: launch type", rows).state is State.FAILED


def test_a_pool_on_demand_is_a_warning_unless_it_is_meant() -> None:
    template = make_template()
    template["variables"]["properties"]["launch_type"]["default"] = "FARGATE"
    found = make_prefect(pool=make_pool(template=template))
    assert the("pool: capacity", prefect_side.rows(found)).state is State.WARNING
    assert "pool: capacity" not in states(prefect_side.rows(replace(found, use_spot=False)))


def test_a_worker_that_is_gone_is_no_worker() -> None:
    gone = Worker("ECSWorker 1", "OFFLINE", NOW - seconds(600))
    row = the("worker", prefect_side.rows(make_prefect(workers=(gone,))))
    assert row.state is State.FAILED
    assert "last heartbeat 10 min ago" in row.found


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


@pytest.mark.parametrize(
    ("variables", "flaw"),
    [
        pytest.param({}, "", id="as the pool has it"),
        pytest.param({"launch_type": "FARGATE"}, "on demand", id="on demand"),
        pytest.param({"launch_type": "EC2"}, "EC2 is never rescued", id="EC2"),
        pytest.param(
            {"capacity_provider_strategy": [{"capacityProvider": "FARGATE", "weight": 1}]},
            "wins over launch_type",
            id="a strategy",
        ),
        pytest.param(
            {
                "capacity_provider_strategy": [
                    {"capacityProvider": "FARGATE_SPOT", "weight": 3},
                    {"capacityProvider": "FARGATE", "weight": 1, "base": 1},
                ]
            },
            "wins over launch_type",
            id="a strategy of both",
        ),
        pytest.param(
            {"capacity_provider_strategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]},
            "",
            id="a strategy of Spot alone",
        ),
        pytest.param({"cluster": "others"}, "nobody watches", id="another cluster"),
        pytest.param(
            {"cluster": "arn:aws:ecs:us-east-1:111122223333:cluster/prefect-spot-dev"},
            "",
            id="our cluster, by its ARN",
        ),
        pytest.param({"env": {SIGTERM: "reschedule"}}, SIGTERM, id="its own SIGTERM behaviour"),
        pytest.param({"env": {SIGTERM: "relinquish"}}, "", id="the same SIGTERM behaviour"),
        pytest.param({"image": "prefecthq/prefect:3.7.2-python3.12"}, "older", id="old image"),
        pytest.param({"task_definition_arn": "mine:1"}, "does not know", id="unknown definition"),
    ],
)
def test_a_deployment_that_goes_past_the_pool_is_told(variables: dict[str, Any], flaw: str) -> None:
    rows = deployments.rows(make_deployments(variables))
    if not flaw:
        assert [row.found for row in rows] == ["1 of 1 would be rescued as well as can be"]
        return
    assert rows[0].found == "0 of 1 would be rescued as well as can be"
    assert flaw in rows[1].found
    assert rows[1].state is State.WARNING
    assert rows[1].next_step


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


def test_tags_that_keep_a_deployment_from_being_rerun_are_told() -> None:
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
        ("prefecthq/prefect:3.8.1-python3.12", (3, 8, 1)),
        ("docker.io/prefecthq/prefect:2.19.4", (2, 19, 4)),
        ("prefecthq/prefect:3.7-python3.11", (3, 7)),
        ("prefecthq/prefect:2-latest", (2,)),
        ("prefecthq/prefect:3-latest", None),
        ("prefecthq/prefect:3-python3.12", (3,)),
        ("prefecthq/prefect:latest", None),
        ("prefecthq/prefect@sha256:0123", None),
        ("123456789012.dkr.ecr.us-east-1.amazonaws.com/etl:1.2.3", None),
        ("", None),
    ],
)
def test_a_version_is_read_from_prefects_own_tags_only(
    image: str, version: tuple[int, ...] | None
) -> None:
    assert deployments.version_of(image) == version


@pytest.mark.parametrize(
    ("image", "is_old"),
    [
        ("prefecthq/prefect:3.8.0", True),
        ("prefecthq/prefect:3.8.1", False),
        ("prefecthq/prefect:3.8-python3.12", False),
        ("prefecthq/prefect:3.10.0", False),
        ("prefecthq/prefect:2-latest", True),
        ("prefecthq/prefect:3-python3.12", False),
    ],
)
def test_an_image_is_old_when_its_tag_says_so(image: str, is_old: bool) -> None:
    found = make_deployments({"image": image})
    assert bool(deployments.flaws_of(found.deployments[0], found)) is is_old


@pytest.mark.parametrize(
    ("queue", "is_one"),
    [
        ("prefect-ecs-tasks-events", True),
        ("etl-ecs-events", True),
        ("etl-ecs-events-dlq", False),
        ("orders", False),
    ],
)
def test_an_observers_queue_is_known_by_its_name(queue: str, is_one: bool) -> None:
    assert observers.is_an_observers(queue) is is_one


def test_observers_are_warned_of() -> None:
    [row] = observers.rows((observers.Observer("etl-ecs-task-events", "etl-ecs-events"),))
    assert row.state is State.WARNING
    assert "aws events disable-rule --name etl-ecs-task-events" in row.next_step
    assert observers.rows(())[0].state is State.OK


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [
        pytest.param(Provisioned("ready"), State.OK, "reach Prefect", id="ready"),
        pytest.param(
            Provisioned("pending", steps=("put dead-letter queue back",)),
            State.WARNING,
            "put dead-letter queue back",
            id="something to do",
        ),
        pytest.param(Provisioned("updating"), State.WARNING, "CloudFormation", id="waiting"),
        pytest.param(
            Provisioned("blocked", problems=("Prefect cannot be had now",)),
            State.FAILED,
            "Prefect cannot be had now",
            id="a problem",
        ),
        pytest.param(
            Provisioned("", problems=("SettingError: MODE is 'x'",)),
            State.FAILED,
            "SettingError",
            id="the function failed",
        ),
    ],
)
def test_provisions_plan_is_judged(answer: Provisioned, state: State, said: str) -> None:
    [row] = provisioned.rows(answer)
    assert row.state is state
    assert said in row.found
