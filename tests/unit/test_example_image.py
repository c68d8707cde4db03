"""The example's image and the script that pushes it, with stand-ins for `aws` and `docker`.

The stand-ins note how they are called. Neither a Docker daemon nor ECR has ever been asked.
"""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "examples" / "build_and_push.sh"
REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
STAND_IN = f"""#!/bin/sh
given=; [ "$1" != login ] || given=$(cat)
echo "${{0##*/}} $* region $AWS_REGION $given" >> "$CALLS"
case "$1 $2" in
  "ecr describe-repositories")
    [ -z "$ECR_ERROR" ] || {{ echo "An error occurred ($ECR_ERROR)" >&2; exit 254; }}
    echo {REGISTRY}/flows ;;
  "ecr create-repository") echo {REGISTRY}/flows ;;
  "ecr get-login-password") printf password-of-the-hour ;;
  push*) echo pushed; exit "${{PUSH_CODE:-0}}" ;;
esac
"""


class Done(NamedTuple):
    code: int
    output: str
    errors: str
    calls: list[str]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Done]:
    """Runs the script with the stand-ins, and options; what is named goes to its environment."""
    for name in ("aws", "docker"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)

    def run_script(*options: str, **environment: str) -> Done:
        calls = tmp_path / "calls"
        calls.write_text("")
        finished = subprocess.run(
            [SCRIPT, *options],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "CALLS": str(calls), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        lines = calls.read_text().splitlines()
        return Done(finished.returncode, finished.stdout, finished.stderr, lines)

    return run_script


def test_the_image_is_built_and_pushed_and_its_address_is_all_that_is_printed(
    run: Callable[..., Done],
) -> None:
    done = run("--repository", "flows", "--tag", "7", "--region", "eu-west-1")
    assert done[:2] == (0, f"{REGISTRY}/flows:7\n"), done
    assert all("region eu-west-1" in call for call in done.calls)
    described, *_, build, push = done.calls
    [login] = [call for call in done.calls if call.startswith("docker login")]
    assert "ecr describe-repositories --repository-names flows" in described
    assert f"--username AWS --password-stdin {REGISTRY}" in login
    assert login.endswith("password-of-the-hour")
    assert f"build --platform linux/amd64 --tag {REGISTRY}/flows:7 {SCRIPT.parent}" in build
    assert f"push {REGISTRY}/flows:7" in push


def test_a_repository_that_is_not_there_is_created(run: Callable[..., Done]) -> None:
    missing = "RepositoryNotFoundException"
    done = run("--repository", "flows", "--tag", "7", ECR_ERROR=missing)
    assert done[:2] == (0, f"{REGISTRY}/flows:7\n"), done
    [created] = [call for call in done.calls if "create-repository" in call]
    assert "--repository-name flows --image-tag-mutability IMMUTABLE" in created


@pytest.mark.parametrize(
    ("options", "environment", "code", "words"),
    [
        ([], {"ECR_ERROR": "AccessDeniedException"}, 2, "AccessDeniedException"),
        ([], {"PUSH_CODE": "1"}, 1, ""),
        (["--nope"], {}, 2, "--nope"),
        (["--tag"], {}, 2, "--tag"),
    ],
    ids=["another error of ECR", "a push that fails", "unknown option", "option without a value"],
)
def test_a_failure_prints_no_address_and_says_what_is_wrong(
    run: Callable[..., Done], options: list[str], environment: dict[str, str], code: int, words: str
) -> None:
    done = run(*options, **environment)
    assert (done.code, done.output) == (code, "")
    assert words in done.errors
    assert not any("create" in call for call in done.calls)


def test_help_names_all_options(run: Callable[..., Done]) -> None:
    done = run("--help")
    assert (done.code, done.calls) == (0, [])
    accepted = re.search(r"--repository \| .*(?=\))", SCRIPT.read_text())
    assert accepted is not None
    assert all(option in done.output for option in accepted.group().split(" | "))


def test_the_image_has_the_versions_that_are_tested_here() -> None:
    lock = (ROOT / "requirements-dev.txt").read_text()
    locked = dict(re.findall(r"^([a-z-]+)==(\S+)", lock, re.MULTILINE))
    dockerfile = (ROOT / "examples" / "Dockerfile").read_text()
    assert f"FROM prefecthq/prefect:{locked['prefect']}-python3." in dockerfile
    for package in ("prefect", "prefect-aws"):
        assert f"{package}=={locked[package]}" in dockerfile
