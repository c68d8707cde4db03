"""Work pools: read, created, given another template, and everything else of them left alone."""

from uuid import uuid4

import pytest
from prefect_aws.workers import ECSWorker

import infra
from chalicelib.core.model.flow_run import RunChange
from chalicelib.core.model.policy import on_demand_variables
from chalicelib.core.provision.pool_template import Template, fixed_capacity, merged
from chalicelib.errors import PrefectConflictError, PrefectRejectedError
from tests.contract.real import RealPrefect
from tests.contract.stage import Stage
from tests.provisioning import VALUES, push_template

SHIPPED = infra.load("base-job-template.json")


@pytest.fixture
def name() -> str:
    return f"pool-{uuid4()}"


def put_in_place(current: Template) -> Template:
    return merged(current, SHIPPED, VALUES, "FARGATE_SPOT")


def test_a_pool_comes_back_as_it_was_created(stage: Stage, name: str) -> None:
    template = put_in_place({})
    stage.work_pools.create(name, template)
    pool = stage.work_pools.read(name)
    assert pool is not None
    assert (pool.name, pool.type, pool.base_job_template) == (name, "ecs", template)
    assert stage.pool_controls.look(name).base_job_template == template


def test_a_second_one_of_that_name_is_a_conflict_and_changes_nothing(
    stage: Stage, name: str
) -> None:
    stage.work_pools.create(name, put_in_place({}))
    before = stage.pool_controls.look(name)
    with pytest.raises(PrefectConflictError):
        stage.work_pools.create(name, ECSWorker.get_default_base_job_template())
    assert stage.pool_controls.look(name) == before


@pytest.mark.parametrize(
    ("kind", "template"), [("docker", {}), ("ecs:push", push_template())], ids=["docker", "push"]
)
def test_a_pool_of_another_type_shows_it(
    stage: Stage, name: str, kind: str, template: Template
) -> None:
    stage.pool_controls.create_pool(name, kind=kind, template=template)
    pool = stage.work_pools.read(name)
    assert pool is not None
    assert (pool.type, pool.base_job_template) == (kind, template)
    assert fixed_capacity(template) == {}, "its runs can be moved"


def test_a_run_of_a_push_pool_is_moved_by_the_variable_that_moves_any(
    stage: Stage, name: str
) -> None:
    """A server of one's own takes such a pool, and starts nothing; only Prefect Cloud does."""
    stage.pool_controls.create_pool(name, kind="ecs:push", template=push_template())
    if not isinstance(stage.controls, RealPrefect):
        stage.controls.work_pools.append(name)
        stage.controls.pool_defaults[name] = {"launch_type": "FARGATE"}
    own = {"launch_type": "FARGATE_SPOT", "cpu": 512}
    deployment = stage.controls.create_deployment(work_pool=name, job_variables=own)
    run_id = stage.running(deployment)
    stage.park(run_id)
    found, defaults = (
        stage.prefect.read_deployment(deployment),
        stage.prefect.read_pool_defaults(name),
    )
    assert found is not None
    wanted = on_demand_variables({}, found.job_variables, defaults)
    assert wanted == {"launch_type": "FARGATE"}, "no strategy, which its template does not know"
    stage.prefect.change_run(run_id, RunChange(job_variables=wanted))
    run = stage.run(run_id)
    assert (dict(run.job_variables), run.work_pool_name) == (wanted, name)


def test_a_changed_template_leaves_limits_queues_and_all_else_alone(
    stage: Stage, name: str
) -> None:
    stage.pool_controls.create_pool(name, template=ECSWorker.get_default_base_job_template())
    stage.pool_controls.settle(name, concurrency_limit=7, description="the nightly pool")
    before = stage.pool_controls.look(name)
    assert (before.concurrency_limit, before.is_paused) == (7, True)
    assert before.queues == {"default": None, "urgent": 2}
    template = put_in_place(before.base_job_template)
    stage.work_pools.change(name, template)
    after = stage.pool_controls.look(name)
    assert after.base_job_template == template != before.base_job_template
    before.base_job_template = after.base_job_template
    assert after == before


def test_what_is_merged_once_is_as_it_shall_be_for_good(stage: Stage, name: str) -> None:
    stage.pool_controls.create_pool(name, template=ECSWorker.get_default_base_job_template())
    stage.work_pools.change(name, put_in_place(stage.pool_controls.look(name).base_job_template))
    pool = stage.work_pools.read(name)
    assert pool is not None
    assert put_in_place(pool.base_job_template) == pool.base_job_template


def test_a_change_of_no_pool_and_a_template_without_its_two_halves_are_rejected(
    stage: Stage, name: str
) -> None:
    whole = put_in_place({})
    half = {part: value for part, value in whole.items() if part != "variables"}
    for write, template in ((stage.work_pools.change, whole), (stage.work_pools.create, half)):
        with pytest.raises(PrefectRejectedError):
            write(name, template)
    assert stage.work_pools.read(name) is None


def test_a_name_may_hold_what_an_address_may_not(stage: Stage, name: str) -> None:
    name = f"ünïcode pool? #{name}"
    stage.work_pools.create(name, put_in_place({}))
    pool = stage.work_pools.read(name)
    assert pool is not None
    stage.work_pools.change(name, pool.base_job_template)
