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

from localcloud.aws import EmulatedAws
from localcloud.cloud import LAMBDA_PYTHON
from localcloud.lambdas import LambdaService
from localcloud.processes import Supervisor
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
def service(supervisor: Supervisor, aws: EmulatedAws) -> Iterator[LambdaService]:
    with LambdaService(supervisor, aws, LAMBDA_PYTHON, retry_scale=0.001) as service:
        yield service


def zip_of(code: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("app.py", code)
    return buffer.getvalue()


def test_a_function_sees_its_own_context_and_environment_and_nothing_of_the_hosts(
    service: LambdaService, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "PYTHON"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SECRET_OF_THE_HOST", "x")
    code = """
import os
def handler(event, context):
    known = [context.function_name, context.memory_limit_in_mb, context.aws_request_id]
    return [dict(os.environ), known, context.get_remaining_time_in_millis()]
"""
    mode = {"Variables": {"MODE": "rescue"}}
    name = deploy(code, Timeout=7, MemorySize=256, Environment=mode)
    invocation = service.invoke(name, {})
    seen, known, remaining = invocation.answer
    assert known == [name, "256", invocation.request_id]
    assert 0 < remaining <= 7000
    assert seen["MODE"] == "rescue"
    assert seen["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
    assert not os.environ.keys() & seen.keys() - {"PATH", "LANG", "LC_CTYPE", "TZ", "TMPDIR"}


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
    tries = [(i.attempt, i.request_id, i.status) for i in service.invocations]
    assert tries == [(attempt, request_id, "error") for attempt in (1, 2, 3)]
    assert all(f"trying {request_id}" in i.logs for i in service.invocations)
    assert service.exhausted == service.invocations[2:]
    [message] = sqs.receive_message(QueueUrl=queue_url)["Messages"]
    body = json.loads(message["Body"])
    assert body["requestPayload"] == {"a": 1}
    assert body["requestContext"]["approximateInvokeCount"] == 3


@pytest.mark.parametrize(
    ("code", "status", "error_type"),
    [
        ("import time\ndef handler(*_): time.sleep(60)", "timeout", "Sandbox.Timedout"),
        ("import os\ndef handler(*_): os._exit(7)", "died", "Runtime.ExitError"),
        ("import boto3, prefect", "error", "Runtime.ImportModuleError"),
        ("import os; os._exit(7)", "died", "Runtime.ExitError"),
    ],
    ids=["timeout", "dead", "not in the zip", "dead in init"],
)
def test_broken_environment_is_replaced(
    service: LambdaService, deploy: Deploy, code: str, status: str, error_type: str
) -> None:
    name = deploy(code, Timeout=1 if status == "timeout" else 20)
    for _ in range(2):
        invocation = service.invoke(name, {})
        assert invocation.error is not None
        assert (invocation.status, invocation.error["errorType"]) == (status, error_type)


def test_killed_invocation_is_tried_again_and_waited_for(
    service: LambdaService, deploy: Deploy
) -> None:
    assert not service.kill_one_at_work(random.Random(1))
    code = "import time\ndef handler(*_): time.sleep(1); return 1"
    service.invoke_async(deploy(code), {"run": "one"})
    wait_until(lambda: service.kill_one_at_work(random.Random(1)))
    with pytest.raises(TimeoutError, match="1 events still under way"):
        service.wait_idle(0.1)
    service.wait_idle(0.1, about="another")
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
    service.invoke(name, {})
    if reserved:  # as `provision` does it, of a function that has been at work
        aws.client("lambda").put_function_concurrency(
            FunctionName=name, ReservedConcurrentExecutions=reserved
        )
    for _ in range(4):
        service.invoke_async(name, {})
    service.wait_idle(20)
    assert len({i.answer for i in service.invocations}) == (reserved or 2)
