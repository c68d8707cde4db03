"""`provision` and the real templates in the emulated AWS, which takes its time and rolls back."""

import json
from typing import Any

import pytest
from prefect_aws.workers import ECSWorker

import infra
from chalicelib.core.provisioning import Desired
from chalicelib.core.stack import Condition
from chalicelib.desired import desired_of
from chalicelib.functions.provision import ProvisionReport
from chalicelib.provision_settings import read_provision_settings
from chalicelib.settings import read_settings
from localcloud.aws import EmulatedAws
from tests.provision_bench import Bench
from tests.provisioning import PARAMETER

MANY_CALLS = 200


def desired(template: Any = None, **environment: str) -> Desired:
    given = {
        "PREFECT_API_URL": "https://prefect.example.com/api",
        "PREFECT_API_KEY_PARAMETER": PARAMETER,
        **environment,
    }
    settings = read_settings(given)
    return desired_of(
        settings,
        read_provision_settings(given, settings),
        template=template or infra.load("stack.json"),
        pool_template=infra.load("base-job-template.json"),
    )


@pytest.fixture(scope="module")
def started(aws: EmulatedAws) -> tuple[Bench, list[ProvisionReport]]:
    """An account where one resource is in the way; the reports until all is ready after all."""
    bench = Bench(desired(), aws.endpoint_url)
    bench.store_key()
    bench.deploy()
    bench.pools.create_pool(
        bench.desired.work_pool, template=ECSWorker.get_default_base_job_template()
    )
    in_the_way = {"logGroupName": f"/ecs/{bench.desired.stack_name}"}
    aws.client("logs").create_log_group(**in_the_way)
    failed = bench.until(Condition.RECOVERING, MANY_CALLS)
    aws.client("logs").delete_log_group(**in_the_way)
    return bench, failed + bench.until_ready(MANY_CALLS)


@pytest.fixture
def bench(started: tuple[Bench, list[ProvisionReport]]) -> Bench:
    """All is ready, as the default settings have it."""
    bench, _ = started
    bench.desired = desired()
    bench.until_ready(MANY_CALLS)
    bench.forget()
    return bench


def outputs(bench: Bench) -> dict[str, str]:
    return {o["OutputKey"]: o["OutputValue"] for o in bench.stack()["Outputs"]}


def test_a_creation_that_fails_is_reported_and_repeated_once_the_cause_is_gone(
    started: tuple[Bench, list[ProvisionReport]],
) -> None:
    bench, reports = started
    [failure] = {problem.message for report in reports for problem in report.problems}
    assert "LogGroup (AWS::Logs::LogGroup)" in failure
    assert "already exists" in failure.lower()
    assert reports[-1].condition is Condition.READY
    assert bench.stack()["StackStatus"].endswith("_COMPLETE")


def test_what_is_ready_fits_together_and_another_call_changes_nothing(bench: Bench) -> None:
    made = outputs(bench)
    template = bench.pools.pools[bench.desired.work_pool].base_job_template
    assert "${" not in json.dumps(template)
    known = {n: p.get("default") for n, p in template["variables"]["properties"].items()}
    assert known["cluster"] == made["ClusterName"] == "prefect-spot-dev"
    assert known["launch_type"] == "FARGATE_SPOT"
    assert known["execution_role_arn"] == made["ExecutionRoleArn"]
    assert known["task_role_arn"] == made["FlowRoleArn"]
    assert known["vpc_id"] == made["VpcId"]
    assert known["network_configuration"] == {
        "subnets": made["SubnetIds"].split(","),
        "securityGroups": made["SecurityGroupIds"].split(","),
        "assignPublicIp": "ENABLED",
    }
    assert known["cloudwatch_logs_options"]["awslogs-group"] == made["LogGroupName"]
    for target in bench.targets():
        assert target["DeadLetterConfig"]["Arn"] == made["FailureQueueArn"]
    assert set(bench.invoke_configs()) == set(bench.desired.functions)

    assert bench.provision().steps == ()
    assert bench.changes == []


def test_flows_and_worker_name_the_keys_parameter_and_its_value_is_found_nowhere(
    started: tuple[Bench, list[ProvisionReport]], bench: Bench, aws: EmulatedAws
) -> None:
    key = bench.aws["ssm"].get_parameter(Name=PARAMETER)["Parameter"]["ARN"]
    arn = outputs(bench)["WorkerTaskDefinitionArn"]
    definition = aws.client("ecs").describe_task_definition(taskDefinition=arn)["taskDefinition"]
    [secret] = definition["containerDefinitions"][0]["secrets"]
    assert secret == {"name": "PREFECT_API_KEY", "valueFrom": key}
    pool = bench.pools.pools[bench.desired.work_pool].base_job_template
    assert pool["variables"]["properties"]["prefect_api_key_secret_arn"]["default"] == key
    cloudformation, name = bench.aws["cloudformation"], bench.desired.stack_name
    published = [
        [report.summary for report in started[1]],
        bench.stack(),
        cloudformation.get_template(StackName=name)["TemplateBody"],
        cloudformation.describe_stack_events(StackName=name)["StackEvents"],
        definition,
        bench.end(),
    ]
    assert "canary" not in str(published)


def test_a_new_setting_reaches_the_worker_and_nothing_else_is_touched(bench: Bench) -> None:
    before = outputs(bench)
    bench.desired = desired(WORKER_CPU="1024", WORKER_MEMORY="2048")
    bench.until_ready(MANY_CALLS)
    assert bench.changes == ["UpdateStack"]
    changed = {name for name, value in outputs(bench).items() if value != before[name]}
    assert changed == {"WorkerTaskDefinitionArn"}


def test_an_update_that_fails_leaves_what_was_and_says_why(bench: Bench) -> None:
    before = bench.end()
    broken = infra.load("stack.json")
    broken["Resources"]["Odd"] = {"Type": "AWS::Odd::Thing"}
    bench.desired = desired(broken)
    [problem] = bench.until(Condition.RECOVERING, MANY_CALLS)[-1].problems
    assert "Odd (AWS::Odd::Thing): Unrecognized" in problem.message
    bench.desired = desired()
    bench.until_ready(MANY_CALLS)
    after = bench.end()
    assert {**after, "status": ""} == {**before, "status": ""}


def test_a_second_stage_of_rescue_only_leaves_the_first_and_its_pool_alone(
    bench: Bench, aws: EmulatedAws
) -> None:
    first = bench.end()
    bench.aws["ssm"].put_parameter(Name="/prod/key", Value="pnu_prod", Type="SecureString")
    own = {"STAGE": "prod", "PREFECT_API_KEY_PARAMETER": "/prod/key"}
    prod = Bench(
        desired(**own, PROVISION="rescue-only", ECS_CLUSTER="theirs,others"), aws.endpoint_url
    )
    theirs = ECSWorker.get_default_base_job_template()
    prod.pools.create_pool(prod.desired.work_pool, template=theirs)
    prod.deploy()
    prod.until_ready(MANY_CALLS)
    assert set(outputs(prod)) == {
        *("TableName", "FailureQueueArn", "FailureQueueUrl", "AlarmTopicArn"),
    }
    assert prod.pools.pools[prod.desired.work_pool].base_job_template == theirs
    assert not set(outputs(prod).values()) & set(outputs(bench).values())
    prod.forget()
    assert prod.provision().steps == ()
    assert {**bench.end(), "targets": 0} == {**first, "targets": 0}
