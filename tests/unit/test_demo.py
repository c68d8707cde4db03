"""A demo that fails says so, and what next; one that is kept leads shells to itself, and works on.

`tests/ui` does what it invites to.
"""

import shutil
import subprocess
from collections.abc import Mapping
from io import StringIO
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from moto.awslambda.exceptions import UnknownFunctionException
from rich.console import Console

from localcloud import demo, playground
from localcloud.cloud import Options


def test_a_demo_that_fails_ends_with_a_line_and_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "flow.log").write_text("beginning\n" * 100 + "out of memory\n")
    file = tmp_path / "build" / "demo-failure.txt"
    said = StringIO()
    try:
        raise RuntimeError("the Prefect server ended; its log:\n[ERROR] no space left")
    except RuntimeError as error:
        error.add_note(demo.logs_of(tmp_path))
        demo.report_failure(Console(file=said, width=200), error, file)
    assert said.getvalue().startswith(
        "error: the demo failed: the Prefect server ended; its log:\n[ERROR] no space left\n"
        "next step: run make demo again"
    )
    assert "Traceback" not in said.getvalue()
    kept = file.read_text()
    assert "Traceback" in kept
    assert "tasks/flow.log" in kept
    assert "out of memory" in kept
    assert kept.count("beginning") < 100
    assert file.stat().st_mode & 0o777 == 0o600


def test_each_cloud_has_a_password_of_its_own() -> None:
    made = {Options().auth_string for _ in range(100)}
    assert len(made) == 100
    assert all(len(pair.removeprefix("admin:")) >= 32 for pair in made)


SHELLS: Final = [name for name in ("sh", "dash", "bash", "zsh", "ksh") if shutil.which(name)]
SETTINGS: Final = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "PREFECT_API_URL": "http://127.0.0.1:2/api",
    "PREFECT_API_AUTH_STRING": 'admin:it\'s "a" $HOME `secret`',
    "SPOTCTL_PROJECT_DIR": "/a folder/project",
}
OWN: Final = {
    "AWS_PROFILE": "prod",
    "AWS_ENDPOINT_URL_S3": "https://s3.example",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
    "PREFECT_API_KEY": "pnu_mine",
    "PREFECT_PROFILE": "prod",
    "PYTHONPATH": "/somewhere",
    "https_proxy": "http://proxy.example",
    "ALL_PROXY": "http://proxy.example\nAWS_NAME_IN_A_VALUE=x",
}
KEPT: Final = {"PATH": "/usr/bin:/bin", "MY_AWS_NOTES": "mine"}


def sourced(shell: str, file: Path) -> tuple[int, str, Mapping[str, str]]:
    """Return what reading the file ends with, what it prints, and the variables after it."""
    finished = subprocess.run(
        [shell, "-c", '. "$1"; echo "ended=$?"; env', shell, file],
        cwd="/",
        env={**OWN, **KEPT},
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(line.split("=", 1) for line in finished.stdout.splitlines() if "=" in line)
    own = {name: found[name] for name in found.keys() & {*OWN, *KEPT, *SETTINGS}}
    return int(found["ended"]), finished.stderr, own


@pytest.mark.parametrize("shell", SHELLS)
def test_the_file_leads_any_shell_to_the_demo_and_nowhere_once_that_has_ended(
    shell: str, tmp_path: Path
) -> None:
    folder, file = tmp_path / "it's here", tmp_path / "demo.env"
    folder.mkdir()
    file.write_text(playground.text_of(folder, [Path("/the tools"), Path("/bin")], SETTINGS))
    led = {**SETTINGS, **KEPT, "PATH": f"/the tools:/bin:{KEPT['PATH']}"}
    assert sourced(shell, file) == (0, "", led)
    folder.rmdir()
    ended, said, variables = sourced(shell, file)
    assert (ended, set(variables)) == (1, {*OWN, *KEPT})
    assert said.startswith("error: this demo has ended\nnext step: run make demo KEEP=1 again")


def test_a_shell_that_outlives_its_demo_hears_so_from_spotctl(tmp_path: Path) -> None:
    folder, file = tmp_path / "demo", tmp_path / "demo.env"
    folder.mkdir()
    with playground.environment_file(kept_cloud(folder), file):
        command = '. "$0"; rmdir "$1"; spotctl status; spotctl status --project-dir /'
        finished = subprocess.run(
            ["sh", "-c", command, file, folder], env=KEPT, capture_output=True, text=True
        )
    assert finished.returncode == 2
    assert finished.stderr.count("error: the demo that this shell works on has ended\n") == 2
    assert finished.stderr.count("next step: open a new shell; make demo KEEP=1 starts") == 2


def kept_cloud(tmp_path: Path, **parts: object) -> Any:
    return SimpleNamespace(folder=tmp_path, environment=SETTINGS, **parts)


def test_the_file_is_its_owners_and_goes_with_its_demo_and_with_no_other(tmp_path: Path) -> None:
    file = tmp_path / "build" / "demo.env"
    with playground.environment_file(kept_cloud(tmp_path), file):
        assert file.stat().st_mode & 0o777 == 0o600
    assert not file.exists()
    file.write_text("left behind by a demo that was killed")
    file.chmod(0o644)
    with playground.environment_file(kept_cloud(tmp_path), file):
        assert file.stat().st_mode & 0o777 == 0o600
        file.write_text("of a newer demo")
    assert file.read_text() == "of a newer demo"


def test_a_kept_demo_fires_its_schedules_until_its_prefect_ends(tmp_path: Path) -> None:
    looks, fired = count(), list[str]()

    def check() -> None:
        if next(looks) == 10:
            raise RuntimeError("the Prefect server has ended")

    def invoke_async(function: str, event: Mapping[str, object]) -> None:
        assert event["detail-type"] == "Scheduled Event"
        fired.append(function)
        if function == "deleted":
            raise UnknownFunctionException("arn")

    rates = {"deleted": 0.0, "sweep": 0.0, "provision": 300.0}
    cloud = kept_cloud(
        tmp_path,
        server=SimpleNamespace(check=check),
        router=SimpleNamespace(schedules=lambda: rates),
        lambdas=SimpleNamespace(invoke_async=invoke_async),
    )
    with pytest.raises(RuntimeError, match="the Prefect server has ended"):
        playground.keep(cloud, look_seconds=0)
    assert fired == ["deleted", "sweep"] * 10
