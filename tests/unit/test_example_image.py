"""The example's image and the script that pushes it, with stand-ins for `aws` and `docker`.

The stand-ins note how they are called. Neither a Docker daemon nor ECR has ever been asked.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "examples" / "build_and_push.sh"
REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"

STAND_IN = f"""import os, sys
from pathlib import Path

name, *arguments = sys.argv[1:]
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


class Shell:
    """Runs the script with the stand-ins; `calls` are those of the last run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.calls: list[str] = []
        stand_in = folder / "stand_in.py"
        stand_in.write_text(STAND_IN)
        for name in ("aws", "docker"):
            program = folder / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{stand_in}" {name} "$@"\n')
            program.chmod(0o755)

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Return exit code, output and errors."""
        calls, path = self._folder / "calls", f"{self._folder}{os.pathsep}/usr/bin:/bin"
        calls.write_text("")
        finished = subprocess.run(
            [SCRIPT, *arguments],
            env={"PATH": path, "CALLS": str(calls), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        self.calls = calls.read_text().splitlines()
        return finished.returncode, finished.stdout, finished.stderr


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_row_custom_image_is_built_and_pushed_and_its_address_is_all_that_is_printed(
    shell: Shell,
) -> None:
    done = shell.run("--repository", "flows", "--tag", "7", "--region", "eu-west-1")
    assert done[:2] == (0, f"{REGISTRY}/flows:7\n"), done
    assert all("region eu-west-1" in call for call in shell.calls)
    described, build, push = shell.calls[0], *shell.calls[-2:]
    assert "ecr describe-repositories --repository-names flows" in described
    assert f"build --platform linux/amd64 --tag {REGISTRY}/flows:7" in build
    assert str(SCRIPT.parent) in build
    assert f"push {REGISTRY}/flows:7" in push
    [login] = [call for call in shell.calls if call.startswith("docker login")]
    assert f"--username AWS --password-stdin {REGISTRY}" in login
    assert login.endswith("password-of-the-hour")
    assert not any("create" in call for call in shell.calls)


def test_a_repository_that_is_not_there_is_created(shell: Shell) -> None:
    missing = "RepositoryNotFoundException"
    done = shell.run("--repository", "flows", "--tag", "7", ECR_ERROR=missing)
    assert done[:2] == (0, f"{REGISTRY}/flows:7\n"), done
    [created] = [call for call in shell.calls if "create-repository" in call]
    assert "--repository-name flows" in created
    assert "--image-tag-mutability IMMUTABLE" in created


def test_any_other_error_of_ecr_ends_it_with_awss_words(shell: Shell) -> None:
    code, output, errors = shell.run(ECR_ERROR="AccessDeniedException")
    assert (code, output, len(shell.calls)) == (2, "", 1)
    assert "AccessDeniedException" in errors


def test_a_push_that_fails_prints_no_address(shell: Shell) -> None:
    assert shell.run(PUSH_CODE="1")[:2] == (1, "")


def test_a_wrong_option_is_named_and_help_names_the_right_ones(shell: Shell) -> None:
    for wrong in ("--nope", "--tag"):
        code, _, errors = shell.run(wrong)
        assert (code, shell.calls) == (2, [])
        assert wrong in errors
    code, output, _ = shell.run("--help")
    assert (code, shell.calls) == (0, [])
    accepted = re.search(r"--repository \| .*(?=\))", SCRIPT.read_text())
    assert accepted is not None
    assert all(option in output for option in accepted.group().split(" | "))


def test_the_image_has_the_versions_that_are_tested_here() -> None:
    locked = dict(
        re.findall(r"^([a-z-]+)==(\S+)", (ROOT / "requirements-dev.txt").read_text(), re.M)
    )
    dockerfile = (ROOT / "examples" / "Dockerfile").read_text()
    assert f"FROM prefecthq/prefect:{locked['prefect']}-python3." in dockerfile
    for package in ("prefect", "prefect-aws"):
        assert f"{package}=={locked[package]}" in dockerfile
