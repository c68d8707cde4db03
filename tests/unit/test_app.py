"""The Lambdas as Chalice sees them: the event pattern, and who imports whom."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from moto.events.models import EventPattern

from app import FARGATE_STOPS, TASK_NEWS, app
from tests.make import make_event

NOT_SPOT = {"capacityProviderName": None}
BY_ITSELF = {"stopCode": "EssentialContainerExited", "stoppedReason": "exited"}


def wakes_react(detail: dict[str, Any] | None = None, **envelope: Any) -> bool:
    pattern: Any = EventPattern.load(json.dumps(TASK_NEWS))
    return bool(pattern.matches_event(make_event(detail, **envelope)))


@pytest.mark.parametrize(
    "detail",
    [
        pytest.param({"lastStatus": "RUNNING"}, id="a warning"),
        pytest.param(
            {"stopCode": "TerminationNotice", "lastStatus": "RUNNING"}, id="an older code"
        ),
        pytest.param({"stopCode": None, **NOT_SPOT}, id="the reason alone"),
        pytest.param(
            {"stopCode": "UserInitiated", "stoppedReason": "prefect-spot drill 7", **NOT_SPOT},
            id="a drill",
        ),
        pytest.param(BY_ITSELF, id="a Spot task in DEPROVISIONING, whatever for"),
        pytest.param({**BY_ITSELF, "lastStatus": "STOPPED"}, id="a Spot task that stopped"),
    ],
)
def test_these_wake_react(detail: dict[str, Any]) -> None:
    assert wakes_react(detail)


@pytest.mark.parametrize(
    "detail",
    [
        pytest.param({**BY_ITSELF, "lastStatus": "RUNNING"}, id="a Spot task that lives"),
        pytest.param({**BY_ITSELF, "lastStatus": "STOPPING"}, id="a Spot task still in its grace"),
        pytest.param({**BY_ITSELF, **NOT_SPOT}, id="an on-demand task that ended"),
        pytest.param(
            {"stopCode": "UserInitiated", "stoppedReason": "by hand", **NOT_SPOT}, id="hand"
        ),
    ],
)
def test_these_do_not(detail: dict[str, Any]) -> None:
    assert not wakes_react(detail)


def test_other_sources_do_not() -> None:
    assert not wakes_react(source="aws.ec2")
    other_kind: dict[str, Any] = {"detail-type": "ECS Service Action"}
    assert not wakes_react(**other_kind)


@pytest.mark.parametrize("capacity", ["FARGATE_SPOT", "FARGATE", None])
def test_the_end_of_every_fargate_task_wakes_meter_and_nothing_else_does(
    capacity: str | None,
) -> None:
    pattern: Any = EventPattern.load(json.dumps(FARGATE_STOPS))
    ended: dict[str, Any] = {"lastStatus": "STOPPED", "capacityProviderName": capacity, **BY_ITSELF}
    assert pattern.matches_event(make_event(ended))
    assert not pattern.matches_event(make_event({**ended, "lastStatus": "DEPROVISIONING"}))
    assert not pattern.matches_event(make_event({**ended, "launchType": "EC2"}))
    assert not pattern.matches_event(make_event(ended, source="aws.batch"))


def test_the_functions_are_deployed_under_their_names() -> None:
    assert [handler.name for handler in app.pure_lambda_functions] == []
    names = [source.name for source in app.event_sources]
    assert names == ["react", "meter", "sweep", "provision"]


def test_the_app_imports_only_wiring_and_functions_of_ours() -> None:
    source = (Path(__file__).parents[2] / "app.py").read_text()
    ours = set(re.findall(r"(?:from|import) ((?:chalicelib|infra|localcloud)\S*)", source))
    functions = {
        f"chalicelib.functions.{name}" for name in ("react", "meter", "sweep", "provision")
    }
    assert ours == {"chalicelib", *functions}


UNASKED = (
    "chalicelib.adapters.bills",
    "chalicelib.core.money.report",
    "chalicelib.core.policies.economics",
)
"""What `react` loads when an event asks for it first."""


@pytest.mark.parametrize(
    ("function", "own", "others"),
    [
        pytest.param(
            "react",
            "functions.rescue",
            ("functions.sweep", "functions.provision", "core.provision"),
            id="react",
        ),
        pytest.param("sweep", "functions.meter", ("functions.provision",), id="sweep"),
        pytest.param("provision", "core.provision.plan", ("functions.rescue",), id="provision"),
    ],
)
def test_a_cold_start_loads_the_code_of_its_own_function_only(
    function: str, own: str, others: tuple[str, ...]
) -> None:
    """In a process of its own, where nothing has been imported yet."""
    environment = {
        "AWS_LAMBDA_FUNCTION_NAME": f"prefect-spot-dev-{function}",
        "_HANDLER": f"app.{function}",
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
        "AWS_DEFAULT_REGION": "us-east-1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    told = subprocess.run(
        [sys.executable, "-c", "import app, sys; print(*sys.modules)"],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(told.stdout.split())
    assert f"chalicelib.{own}" in loaded
    assert not loaded & {f"chalicelib.{other}" for other in others}
    if function == "react":
        assert not loaded & set(UNASKED)
