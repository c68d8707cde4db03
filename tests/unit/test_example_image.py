"""The example's image and the script that pushes it, with stand-ins for `aws` and `docker`.

The stand-ins note how they are called. Neither a Docker daemon nor ECR has ever been asked.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "examples" / "build_and_push.sh"
REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"

STAND_IN = f"""#!{sys.executable}
import os, sys
from pathlib import Path

name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
given = "" if sys.stdin.isatty() or arguments[0] != "login" else sys.stdin.read()
region = os.environ.get("AWS_REGION", "")
with Path(os.environ["CALLS"]).open("a") as calls:
    calls.write(" ".join([name, *arguments, "region", region, given]) + "\\n")
match arguments[:2]:
    case ["ecr", "describe-repositories"]:
        if error := os.environ.get("ECR_ERROR"):
            sys.exit(f"An error occurred ({{error}}) when calling DescribeRepositories")
        print("{REGISTRY}/flows")
    case ["ecr", "create-repository"]:
        print("{REGISTRY}/flows")
    case ["ecr", "get-login-password"]:
        print("password-of-the-hour", end="")
    case ["push", _]:
        print("pushed")
        sys.exit(int(os.environ.get("PUSH_CODE", "0")))
"""


@dataclass(frozen=True)
class Finished:
    """What a run of the script came to, and the calls it made."""

    code: int
    output: str
    errors: str
    calls: list[str]


class Shell:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("aws", "docker"):
            program = folder / name
            program.write_text(STAND_IN)
            program.chmod(0o755)

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Finished:
        calls = self._folder / "calls"
        calls.write_text("")
        finished = subprocess.run(
            [SCRIPT, *arguments],
            env={
                "PATH": f"{self._folder}{os.pathsep}/usr/bin:/bin",
                "CALLS": str(calls),
                **(environment or {}),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        made = calls.read_text().splitlines()
        return Finished(finished.returncode, finished.stdout, finished.stderr, made)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_row_custom_image_is_built_and_pushed_and_its_address_is_all_that_is_printed(
    shell: Shell,
) -> None:
    done = shell.run("--repository", "flows", "--tag", "7", "--region", "eu-west-1")
    assert (done.code, done.output) == (0, f"{REGISTRY}/flows:7\n"), done.errors
    assert all("region eu-west-1" in call for call in done.calls)
    described, build, push = done.calls[0], *done.calls[-2:]
    assert "ecr describe-repositories --repository-names flows" in described
    assert f"build --platform linux/amd64 --tag {REGISTRY}/flows:7" in build
    assert str(SCRIPT.parent) in build
    assert f"push {REGISTRY}/flows:7" in push
    [login] = [call for call in done.calls if call.startswith("docker login")]
    assert f"--username AWS --password-stdin {REGISTRY}" in login
    assert login.endswith("password-of-the-hour")
    assert not any("create" in call for call in done.calls)


def test_a_repository_that_is_not_there_is_created(shell: Shell) -> None:
    done = shell.run(
        "--repository", "flows", "--tag", "7",
        environment={"ECR_ERROR": "RepositoryNotFoundException"},
    )  # fmt: skip
    assert (done.code, done.output) == (0, f"{REGISTRY}/flows:7\n"), done.errors
    [created] = [call for call in done.calls if "create-repository" in call]
    assert "--repository-name flows" in created
    assert "--image-tag-mutability IMMUTABLE" in created


def test_any_other_error_of_ecr_ends_it_with_awss_words(shell: Shell) -> None:
    done = shell.run(environment={"ECR_ERROR": "AccessDeniedException"})
    assert (done.code, done.output) == (2, "")
    assert "AccessDeniedException" in done.errors
    assert len(done.calls) == 1


def test_a_push_that_fails_prints_no_address(shell: Shell) -> None:
    done = shell.run(environment={"PUSH_CODE": "1"})
    assert (done.code, done.output) == (1, "")


@pytest.mark.parametrize("arguments", [("--nope",), ("--tag",)])
def test_a_wrong_option_is_named(shell: Shell, arguments: tuple[str, ...]) -> None:
    done = shell.run(*arguments)
    assert done.code == 2
    assert arguments[0] in done.errors
    assert done.calls == []


def test_help_names_every_option_and_calls_nobody(shell: Shell) -> None:
    done = shell.run("--help")
    assert (done.code, done.calls) == (0, [])
    accepted = re.search(r"--repository \| .*(?=\))", SCRIPT.read_text())
    assert accepted is not None
    for option in accepted.group().split(" | "):
        assert option in done.output


def test_the_image_has_the_versions_that_are_tested_here() -> None:
    locked = dict(
        re.findall(r"^([a-z-]+)==(\S+)", (ROOT / "requirements-dev.txt").read_text(), re.M)
    )
    dockerfile = (ROOT / "examples" / "Dockerfile").read_text()
    assert f"FROM prefecthq/prefect:{locked['prefect']}-python3." in dockerfile
    for package in ("prefect", "prefect-aws"):
        assert f"{package}=={locked[package]}" in dockerfile
