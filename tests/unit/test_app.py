"""The Lambdas as Chalice sees them: the event pattern, and who imports whom."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.events.models import EventPattern

from app import FARGATE_STOPS, SPOT_EVENTS, app, cluster_filters
from chalicelib.errors import SettingError
from tests.make import CLUSTER_ARN, make_event

OF_CLUSTER = CLUSTER_ARN.removesuffix("prefect-spot-dev")
NOT_SPOT = {"capacityProviderName": None}
BY_ITSELF = {"stopCode": "EssentialContainerExited", "stoppedReason": "exited"}


DRILL = {"stopCode": "UserInitiated", "stoppedReason": "prefect-spot drill 7", **NOT_SPOT}


@pytest.mark.parametrize(
    ("event", "is_woken"),
    [
        pytest.param(make_event({"lastStatus": "RUNNING"}), True, id="a warning"),
        pytest.param(
            make_event({"stopCode": "TerminationNotice", "lastStatus": "RUNNING"}),
            True,
            id="an older code",
        ),
        pytest.param(make_event({"stopCode": None, **NOT_SPOT}), True, id="the reason alone"),
        pytest.param(make_event(DRILL), True, id="a drill"),
        pytest.param(make_event(BY_ITSELF), True, id="a Spot task in DEPROVISIONING"),
        pytest.param(make_event({**BY_ITSELF, "lastStatus": "STOPPED"}), True, id="it stopped"),
        pytest.param(make_event({**BY_ITSELF, "lastStatus": "RUNNING"}), False, id="it lives"),
        pytest.param(make_event({**BY_ITSELF, "lastStatus": "STOPPING"}), False, id="its grace"),
        pytest.param(make_event({**BY_ITSELF, **NOT_SPOT}), False, id="an on-demand task's end"),
        pytest.param(make_event({**DRILL, "stoppedReason": "by hand"}), False, id="by hand"),
        pytest.param(
            make_event({"stopCode": "TaskFailedToStart", "lastStatus": "DEPROVISIONING"}),
            True,
            id="a failed start",
        ),
        pytest.param(
            make_event({"stopCode": "InfrastructureHealth", **NOT_SPOT}), True, id="its host died"
        ),
        pytest.param(make_event({"launchType": None}), True, id="no launch type"),
        *(
            pytest.param(make_event({**detail, "launchType": launch_type}), False, id=launch_type)
            for launch_type in ("EC2", "EXTERNAL", "MANAGED_INSTANCES")
            for detail in ({}, DRILL, {"stopCode": "TaskFailedToStart"})
        ),
        *(
            pytest.param(make_event({"clusterArn": f"{OF_CLUSTER}{name}"}), False, id=name)
            for name in ("prefect-spot-dev-2", "my-prefect-spot-dev", "default", "")
        ),
        pytest.param(make_event(source="aws.ec2"), False, id="another source"),
        pytest.param(
            {**make_event(), "detail-type": "ECS Service Action"}, False, id="another kind"
        ),
    ],
)
def test_an_interruption_and_the_end_of_a_spot_task_wake_react(
    event: dict[str, Any], is_woken: bool
) -> None:
    pattern: Any = EventPattern.load(json.dumps(SPOT_EVENTS))
    assert bool(pattern.matches_event(event)) is is_woken


@pytest.mark.parametrize("capacity", ["FARGATE_SPOT", "FARGATE", None])
def test_the_end_of_every_fargate_task_wakes_meter_and_nothing_else_does(
    capacity: str | None,
) -> None:
    pattern: Any = EventPattern.load(json.dumps(FARGATE_STOPS))
    ended: dict[str, Any] = {"lastStatus": "STOPPED", "capacityProviderName": capacity, **BY_ITSELF}
    assert pattern.matches_event(make_event(ended))
    assert not pattern.matches_event(make_event({**ended, "lastStatus": "DEPROVISIONING"}))
    assert pattern.matches_event(make_event({**ended, "launchType": None}))
    assert not pattern.matches_event(make_event({**ended, "launchType": "EC2"}))
    assert not pattern.matches_event(make_event(ended, source="aws.batch"))
    elsewhere = {**ended, "clusterArn": f"{OF_CLUSTER}another"}
    assert not pattern.matches_event(make_event(elsewhere))


NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,30}", fullmatch=True)
CLUSTERS = st.lists(NAMES, min_size=1, max_size=4, unique=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(ours=CLUSTERS, others=CLUSTERS, are_arns=st.booleans())
def test_a_rule_passes_the_tasks_of_the_stages_clusters_and_of_no_other(
    ours: list[str], others: list[str], are_arns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECS_CLUSTER", ",".join(f"{OF_CLUSTER * are_arns}{name}" for name in ours))
    detail = {"clusterArn": cluster_filters()}
    pattern: Any = EventPattern.load(json.dumps({"detail": detail}))
    for name in (*ours, *others):
        event = make_event({"clusterArn": f"{OF_CLUSTER}{name}"})
        assert bool(pattern.matches_event(event)) is (name in ours)


def test_more_clusters_than_a_rule_takes_are_left_to_the_functions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pattern has 2,048 characters; the functions look at the cluster, too."""
    clusters = [f"cluster-{number:0>240}" for number in range(20)]
    for given_ in (clusters[:5], clusters):
        monkeypatch.setenv("ECS_CLUSTER", ",".join(given_))
        filters = cluster_filters()
        detail = {**SPOT_EVENTS["detail"], "clusterArn": filters}
        assert len(json.dumps({**SPOT_EVENTS, "detail": detail})) <= 2_048
        assert (filters == [{"prefix": "arn:"}]) is (given_ == clusters)
    monkeypatch.setenv("ECS_CLUSTER", " , ")
    with pytest.raises(SettingError, match="ECS_CLUSTER"):
        cluster_filters()


def test_chalice_makes_the_rules_with_the_variables_of_the_stage_it_deploys(tmp_path: Path) -> None:
    """As `chalice deploy` and `chalice package` load the app, from a shell without settings."""
    for name in ("app.py", "chalicelib", "infra"):
        (tmp_path / name).symlink_to(Path(__file__).parents[2] / name)
    stages = {
        "prod": {"environment_variables": {"STAGE": "prod"}},
        "own": {"environment_variables": {"STAGE": "own", "ECS_CLUSTER": "one,two"}},
    }
    (tmp_path / ".chalice").mkdir()
    config = {"version": "2.0", "app_name": "prefect-spot", "stages": stages}
    (tmp_path / ".chalice" / "config.json").write_text(json.dumps(config))
    script = (
        "import json, os, sys; from chalice.cli.factory import CLIFactory;"
        "config = CLIFactory('.', environ=os.environ).create_config_obj(sys.argv[1]);"
        "sources = config.chalice_app.event_sources[:2];"
        "print(json.dumps([s.event_pattern['detail']['clusterArn'] for s in sources]))"
    )
    for stage, names in (("prod", ["prefect-spot-prod"]), ("own", ["one", "two"])):
        answer = subprocess.run(
            [sys.executable, "-c", script, stage],
            cwd=tmp_path,
            env={"PYTHONDONTWRITEBYTECODE": "1", "AWS_DEFAULT_REGION": "us-east-1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(answer.stdout) == [[{"suffix": f":cluster/{n}"} for n in names]] * 2


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
    assert ours == {"chalicelib", "chalicelib.provision_wiring", *functions}


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
            ("functions.sweep", "functions.provision", "core.provision.plan"),
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
