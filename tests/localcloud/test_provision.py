"""`provision` and the real templates in the emulated AWS, which takes its time and rolls back."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prefect_aws.workers import ECSWorker

import infra
from chalicelib.core.provisioning import Desired
from chalicelib.core.stack import Condition
from chalicelib.desired import desired_of
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


@pytest.fixture
def aws() -> Iterator[EmulatedAws]:
    """Another one for each test: an empty account is what they begin with."""
    with EmulatedAws() as aws:
        yield aws


@pytest.fixture
def bench(aws: EmulatedAws) -> Bench:
    bench = Bench(desired(), aws.endpoint_url)
    bench.store_key()
    bench.deploy()
    return bench


def outputs(bench: Bench) -> dict[str, str]:
    return {o["OutputKey"]: o["OutputValue"] for o in bench.stack()["Outputs"]}


def pool_defaults(bench: Bench) -> dict[str, Any]:
    template = bench.pools.pools[bench.desired.work_pool].base_job_template
    return {n: p.get("default") for n, p in template["variables"]["properties"].items()}


def test_an_empty_account_becomes_ready_and_then_stays_as_it_is(bench: Bench) -> None:
    bench.pools.create_pool(
        bench.desired.work_pool, template=ECSWorker.get_default_base_job_template()
    )
    reports = bench.until_ready(MANY_CALLS)
    assert [problem for report in reports for problem in report.problems] == []
    assert bench.changes[:2] == ["CreateServiceLinkedRole", "CreateStack"]
    known, made = pool_defaults(bench), outputs(bench)
    assert "${" not in json.dumps(bench.pools.pools[bench.desired.work_pool].base_job_template)
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
    key = bench.aws["ssm"].get_parameter(Name=PARAMETER)["Parameter"]["ARN"]
    assert known["prefect_api_key_secret_arn"] == key
    for target in bench.targets():
        assert target["DeadLetterConfig"]["Arn"] == made["FailureQueueArn"]
    assert set(bench.invoke_configs()) == set(bench.desired.functions)

    bench.forget()
    assert bench.provision().steps == ()
    assert bench.changes == []


def test_the_worker_gets_the_key_from_the_parameter_that_was_looked_up(
    bench: Bench, aws: EmulatedAws
) -> None:
    bench.until_ready(MANY_CALLS)
    arn = outputs(bench)["WorkerTaskDefinitionArn"]
    ecs = aws.client("ecs")
    definition = ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
    [secret] = definition["containerDefinitions"][0]["secrets"]
    key = bench.aws["ssm"].get_parameter(Name=PARAMETER)["Parameter"]["ARN"]
    assert secret == {"name": "PREFECT_API_KEY", "valueFrom": key}


def test_the_keys_value_is_found_nowhere(bench: Bench) -> None:
    reports = bench.until_ready(MANY_CALLS)
    cloudformation = bench.aws["cloudformation"]
    name = bench.desired.stack_name
    told = [
        [report.summary for report in reports],
        bench.stack(),
        cloudformation.get_template(StackName=name)["TemplateBody"],
        cloudformation.describe_stack_events(StackName=name)["StackEvents"],
        bench.pools.pools,
        bench.end(),
    ]
    assert "canary" not in str(told)


def test_a_new_setting_reaches_the_worker_and_nothing_else_is_touched(bench: Bench) -> None:
    bench.until_ready(MANY_CALLS)
    before = outputs(bench)
    bench.forget()
    bench.desired = desired(WORKER_CPU="1024", WORKER_MEMORY="2048")
    bench.until_ready(MANY_CALLS)
    assert bench.changes == ["UpdateStack"]
    changed = {name for name, value in outputs(bench).items() if value != before[name]}
    assert changed == {"WorkerTaskDefinitionArn"}


def test_a_creation_that_fails_is_told_of_and_made_good_once_the_cause_is_gone(
    bench: Bench, aws: EmulatedAws
) -> None:
    logs = aws.client("logs")
    logs.create_log_group(logGroupName="/ecs/prefect-spot-dev")
    reports = bench.until(Condition.RECOVERING, MANY_CALLS)
    failed = next(p.message for r in reports for p in r.problems)
    assert "LogGroup (AWS::Logs::LogGroup)" in failed
    assert "already exists" in failed.lower()
    logs.delete_log_group(logGroupName="/ecs/prefect-spot-dev")
    bench.until_ready(MANY_CALLS)
    assert bench.stack()["StackStatus"] == "CREATE_COMPLETE"
    assert "DeleteStack" in bench.changes


def test_an_update_that_fails_leaves_what_was_and_says_why(bench: Bench) -> None:
    bench.until_ready(MANY_CALLS)
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


def test_two_calls_at_once_do_no_harm(bench: Bench) -> None:
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(bench.until_ready, MANY_CALLS) for _ in range(2)]
        for call in calls:
            call.result()
    assert bench.changes.count("CreateStack") <= 2
    bench.forget()
    bench.provision()
    assert bench.changes == []


def test_rescue_only_makes_the_handlers_own_parts(bench: Bench, aws: EmulatedAws) -> None:
    bench.desired = desired(PROVISION="rescue-only", ECS_CLUSTER="theirs,others")
    theirs = ECSWorker.get_default_base_job_template()
    bench.pools.create_pool(bench.desired.work_pool, template=theirs)
    bench.until_ready(MANY_CALLS)
    assert set(outputs(bench)) == {
        *("TableName", "FailureQueueArn", "FailureQueueUrl", "AlarmTopicArn"),
    }
    assert bench.pools.pools[bench.desired.work_pool].base_job_template == theirs
    assert aws.client("ecs").list_clusters()["clusterArns"] == []
    bench.forget()
    bench.provision()
    assert bench.changes == []


def test_two_stages_live_side_by_side(bench: Bench, aws: EmulatedAws) -> None:
    bench.until_ready(MANY_CALLS)
    dev = bench.end()
    bench.aws["ssm"].put_parameter(Name="/prod/key", Value="pnu_prod", Type="SecureString")
    prod = Bench(desired(STAGE="prod", PREFECT_API_KEY_PARAMETER="/prod/key"), aws.endpoint_url)
    prod.deploy()
    prod.until_ready(MANY_CALLS)
    assert {**bench.end(), "targets": 0, "roles": 0} == {**dev, "targets": 0, "roles": 0}
    assert set(outputs(bench).values()) & set(outputs(prod).values()) == {
        outputs(bench)["VpcId"],
        outputs(bench)["SubnetIds"],
        outputs(bench)["WorkerServiceName"],
    }
