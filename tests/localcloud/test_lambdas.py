"""A deployed zip runs as in Lambda: its own process, environment, retries and end."""

import io
import json
import os
import random
import sys
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from moto.awslambda.exceptions import UnknownFunctionException

from localcloud.aws import EmulatedAws
from localcloud.cloud import LAMBDA_PYTHON
from localcloud.lambdas import LambdaService
from localcloud.processes import Household
from tests.localcloud.cloud import wait_until

Deploy = Callable[..., str]

COUNTER = "calls = 0\ndef handler(event, context):\n    global calls; calls += 1; return calls"
FAILING = "def handler(event, context):\n    print('trying', context.aws_request_id)\n    1 / 0"


@pytest.fixture(scope="module")
def role(aws: EmulatedAws) -> str:
    role = aws.client("iam").create_role(RoleName="lambda", AssumeRolePolicyDocument="{}")
    return str(role["Role"]["Arn"])


@pytest.fixture
def deploy(aws: EmulatedAws, role: str) -> Iterator[Deploy]:
    client = aws.client("lambda")
    names: list[str] = []

    def deploy(code: str, **configuration: Any) -> str:
        """Create a function from the source of its one module; return its name."""
        names.append(f"function-{len(names)}")
        client.create_function(
            FunctionName=names[-1],
            Runtime=f"python{sys.version_info.major}.{sys.version_info.minor}",
            Role=role,
            Handler="app.handler",
            Code={"ZipFile": zip_of(code)},
            **{"Timeout": 20, **configuration},
        )
        return names[-1]

    yield deploy
    for name in names:
        client.delete_function(FunctionName=name)


@pytest.fixture
def service(household: Household, aws: EmulatedAws) -> Iterator[LambdaService]:
    with LambdaService(household, aws, LAMBDA_PYTHON, retry_scale=0.001) as service:
        yield service


def zip_of(code: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("app.py", code)
    return buffer.getvalue()


def test_answer_and_output_come_back(service: LambdaService, deploy: Deploy) -> None:
    name = deploy("print('init')\ndef handler(event, context):\n    print('hello'); return event")
    invocation = service.invoke(name, {"a": 1})
    assert (invocation.status, invocation.answer, invocation.error) == ("ok", {"a": 1}, None)
    assert [line for line in invocation.logs if line in ("init", "hello")] == ["init", "hello"]
    assert service.invoke(name, {}).logs == ["hello"]
    assert len(service.invocations) == 2


def test_invoke_of_the_aws_api_is_answered(
    service: LambdaService, aws: EmulatedAws, deploy: Deploy
) -> None:
    client = aws.client("lambda")
    echo = deploy("def handler(event, context): return {'got': event}")
    answer = client.invoke(FunctionName=echo, Payload=b'{"n": 1}')
    assert json.loads(answer["Payload"].read()) == {"got": {"n": 1}}
    assert "FunctionError" not in answer
    failing = deploy(FAILING)
    answer = client.invoke(FunctionName=failing, Payload=b"{}")
    assert answer["FunctionError"] == "Unhandled"
    assert json.loads(answer["Payload"].read())["errorType"] == "ZeroDivisionError"
    client.invoke(FunctionName=echo, InvocationType="Event", Payload=b'{"n": 2}')
    service.wait_idle(15)
    assert [i.answer for i in service.invocations if i.status == "ok"][-1] == {"got": {"n": 2}}


def test_context_knows_function_and_remaining_time(service: LambdaService, deploy: Deploy) -> None:
    code = """
def handler(event, context):
    return [context.function_name, context.memory_limit_in_mb, context.aws_request_id,
            context.invoked_function_arn, context.get_remaining_time_in_millis()]
"""
    name = deploy(code, Timeout=7, MemorySize=256)
    invocation = service.invoke(name, {})
    *known, remaining = invocation.answer
    arn = f"arn:aws:lambda:us-east-1:123456789012:function:{name}"
    assert known == [name, "256", invocation.request_id, arn]
    assert 5000 < remaining <= 7000


def test_function_sees_its_own_environment_and_nothing_of_the_hosts(
    service: LambdaService, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "PYTHON"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SECRET_OF_THE_HOST", "x")
    code = "import os\ndef handler(event, context):\n    return dict(os.environ)"
    seen = service.invoke(deploy(code, Environment={"Variables": {"MODE": "rescue"}}), {}).answer
    assert seen["MODE"] == "rescue"
    assert seen["_HANDLER"] == "app.handler"
    assert seen["AWS_LAMBDA_FUNCTION_VERSION"] == "$LATEST"
    assert seen["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
    assert "SECRET_OF_THE_HOST" not in seen
    assert not os.environ.keys() & seen.keys() - {"PATH", "LANG", "LC_CTYPE", "TZ", "TMPDIR"}


def test_only_the_zip_and_lambdas_own_packages_can_be_imported(
    service: LambdaService, deploy: Deploy
) -> None:
    invocation = service.invoke(deploy("import boto3\nimport prefect\n" + COUNTER), {})
    assert invocation.status == "error"
    assert invocation.error is not None
    assert "No module named 'prefect'" in invocation.error["errorMessage"]


def test_failing_event_is_tried_three_times_and_sent_on(
    service: LambdaService, deploy: Deploy, aws: EmulatedAws
) -> None:
    sqs = aws.client("sqs")
    queue_url = sqs.create_queue(QueueName="failures")["QueueUrl"]
    name = deploy(FAILING)
    aws.client("lambda").put_function_event_invoke_config(
        FunctionName=name,
        DestinationConfig={
            "OnFailure": {"Destination": "arn:aws:sqs:us-east-1:123456789012:failures"}
        },
    )
    request_id = service.invoke_async(name, {"a": 1})
    service.wait_idle(20)
    assert [(i.attempt, i.request_id, i.status) for i in service.invocations] == [
        (1, request_id, "error"),
        (2, request_id, "error"),
        (3, request_id, "error"),
    ]
    assert all(f"trying {request_id}" in i.logs for i in service.invocations)
    assert service.invocations[0].error is not None
    assert service.invocations[0].error["errorType"] == "ZeroDivisionError"
    assert service.exhausted == service.invocations[2:]
    [message] = sqs.receive_message(QueueUrl=queue_url)["Messages"]
    body = json.loads(message["Body"])
    assert body["requestPayload"] == {"a": 1}
    assert body["requestContext"]["approximateInvokeCount"] == 3


def test_wait_idle_raises_while_an_event_is_under_way(
    service: LambdaService, deploy: Deploy
) -> None:
    service.invoke_async(deploy("import time\ndef handler(*_): time.sleep(5)"), {"run": "one"})
    with pytest.raises(TimeoutError, match="1 events still under way"):
        service.wait_idle(0.1)
    service.wait_idle(0.1, about="another")


@pytest.mark.parametrize(
    ("code", "status", "error_type"),
    [
        ("import time\ndef handler(*_): time.sleep(60)", "timeout", "Sandbox.Timedout"),
        ("import os\ndef handler(*_): os._exit(7)", "died", "Runtime.ExitError"),
        ("import no_such_module", "error", "Runtime.ImportModuleError"),
        ("import os; os._exit(7)", "died", "Runtime.ExitError"),
    ],
    ids=["overdue", "dead", "init error", "dead in init"],
)
def test_broken_environment_is_replaced(
    service: LambdaService, deploy: Deploy, code: str, status: str, error_type: str
) -> None:
    name = deploy(code, Timeout=1)
    for _ in range(2):
        invocation = service.invoke(name, {})
        assert invocation.status == status
        assert invocation.error is not None
        assert invocation.error["errorType"] == error_type


def test_killed_invocation_is_tried_again(service: LambdaService, deploy: Deploy) -> None:
    assert not service.kill_one_at_work(random.Random(1))
    service.invoke_async(deploy("import time\ndef handler(*_): time.sleep(1); return 1"), {})
    wait_until(lambda: service.kill_one_at_work(random.Random(1)))
    service.wait_idle(30)
    assert [i.status for i in service.invocations] == ["died", "ok"]


def test_environment_is_reused_until_configuration_or_code_changes(
    service: LambdaService, deploy: Deploy, aws: EmulatedAws
) -> None:
    code = "import os\n" + COUNTER.replace("return calls", "return [os.getenv('MODE'), calls]")
    name = deploy(code, Environment={"Variables": {"MODE": "rescue"}})
    assert [service.invoke(name, {}).answer for _ in "12"] == [["rescue", 1], ["rescue", 2]]
    client = aws.client("lambda")
    client.update_function_configuration(
        FunctionName=name, Environment={"Variables": {"MODE": "observe"}}
    )
    assert service.invoke(name, {}).answer == ["observe", 1]
    client.update_function_code(FunctionName=name, ZipFile=zip_of("def handler(*_): return 'new'"))
    assert service.invoke(name, {}).answer == "new"


@pytest.mark.parametrize("reserved", [None, 1])
def test_so_many_environments_work_at_once_as_are_allowed(
    service: LambdaService, deploy: Deploy, aws: EmulatedAws, reserved: int | None
) -> None:
    name = deploy("import os, time\ndef handler(*_): time.sleep(0.3); return os.getpid()")
    if reserved:
        aws.client("lambda").put_function_concurrency(
            FunctionName=name, ReservedConcurrentExecutions=reserved
        )
    for _ in range(4):
        service.invoke_async(name, {})
    service.wait_idle(20)
    assert len({i.answer for i in service.invocations}) == (reserved or 2)


def test_unknown_function_is_refused(service: LambdaService) -> None:
    with pytest.raises(UnknownFunctionException):
        service.invoke_async("nowhere", {})
