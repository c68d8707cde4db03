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
EXAMPLES = ROOT / "examples"
SCRIPT = EXAMPLES / "build_and_push.sh"
DOCKERFILE = EXAMPLES / "Dockerfile"
REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
STAND_IN = f"""#!/bin/sh
given=; [ "$1" != login ] || given=$(cat)
echo "${{0##*/}} $* region $AWS_REGION $given" >> "$CALLS"
case "$1 $2" in
  "ecr describe-repositories")
    printf %b "$WARNING" >&2
    [ -z "$ECR_ERROR" ] || {{ echo "An error occurred ($ECR_ERROR)" >&2; exit 254; }}
    printf %b "${{FOUND-{REGISTRY}/flows\\n}}"; exit "${{FOUND_CODE:-0}}" ;;
  "ecr create-repository")
    printf %b "$WARNING" >&2
    printf %b "${{FOUND-{REGISTRY}/flows\\n}}"; exit "${{CREATE_CODE:-0}}" ;;
  "ecr get-login-password")
    printf %b "$WARNING" >&2
    printf %b "${{GIVEN-password-of-the-hour\\n}}"; exit "${{GIVEN_CODE:-0}}" ;;
  login*) printf %b "$WARNING" >&2; echo Login Succeeded; exit "${{LOGIN_CODE:-0}}" ;;
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


WARNINGS = {
    "a registry's name": "evil.example/x",
    "a registry's name, and a line": "evil.example/x\n",
    "an ECR of another account": "210987654321.dkr.ecr.eu-west-1.amazonaws.com/flows\n",
    "Python's own": "/usr/lib/aws: SyntaxWarning: invalid escape\n  x = 1\n",
    "a repository that is not there": "no RepositoryNotFoundException this time\n",
    "escapes": "\\033[2J\n",
}


@pytest.mark.parametrize("warning", WARNINGS.values(), ids=WARNINGS)
@pytest.mark.parametrize("missing", ["", "RepositoryNotFoundException"], ids=["found", "created"])
def test_a_warning_is_no_part_of_the_address_nor_of_the_password(
    run: Callable[..., Done], warning: str, missing: str
) -> None:
    done = run("--repository", "flows", "--tag", "7", WARNING=warning, ECR_ERROR=missing)
    assert done[:2] == (0, f"{REGISTRY}/flows:7\n"), done
    [login] = [call for call in done.calls if call.startswith("docker login")]
    assert f"--password-stdin {REGISTRY} region" in login
    assert login.endswith(" password-of-the-hour")
    assert warning.splitlines()[0] in done.errors or "033" in warning
    assert any("create-repository" in call for call in done.calls) == bool(missing)


NO_REGISTRY = {
    "nothing": "",
    "blanks": " \n \n",
    "none": "None\n",
    "garbage": "\\001\\377\n",
    "another host": "evil.example/flows\n",
    "a line before": f"evil.example/x\n{REGISTRY}/flows\n",
    "a line after": f"{REGISTRY}/flows\nevil.example/x\n",
    "a word before": f"warning: {REGISTRY}/flows\n",
    "a word after": f"{REGISTRY}/flows --config=/evil\n",
    "a carriage return": f"{REGISTRY}/flows\\r\n",
    "an option": f"--config={REGISTRY}/flows\n",
    "no repository": f"{REGISTRY}\n",
    "an empty repository": f"{REGISTRY}/\n",
    "a port": f"{REGISTRY}:444/flows\n",
    "a user": f"x@{REGISTRY}/flows\n",
    "a scheme": f"https://{REGISTRY}/flows\n",
    "a longer host": f"{REGISTRY}.evil.example/flows\n",
    "a host before": f"evil.example/{REGISTRY}/flows\n",
    "any letter for a dot": f"{REGISTRY.replace('.dkr.', 'xdkr.')}/flows\n",
    "a short account": f"{REGISTRY[1:]}/flows\n",
    "a long account": f"1{REGISTRY}/flows\n",
    "capitals": f"{REGISTRY.upper()}/flows\n",
    "a tag of its own": f"{REGISTRY}/flows:latest\n",
    "a way up": f"{REGISTRY}/../flows\n",
}


@pytest.mark.parametrize("found", NO_REGISTRY.values(), ids=NO_REGISTRY)
@pytest.mark.parametrize("missing", ["", "RepositoryNotFoundException"], ids=["found", "created"])
def test_what_is_no_address_of_ecr_gets_no_password(
    run: Callable[..., Done], found: str, missing: str
) -> None:
    done = run("--repository", "flows", FOUND=found, ECR_ERROR=missing)
    assert (done.code, done.output) == (2, "")
    assert "ECR's answer is not as it should be" in done.errors
    assert not [call for call in done.calls if "docker" in call or "password" in call]
    assert done.errors.isascii()
    assert done.errors.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "host", ["-fips.us-gov-west-1.amazonaws.com", ".cn-north-1.amazonaws.com.cn"]
)
def test_the_registries_of_every_partition_are_known(run: Callable[..., Done], host: str) -> None:
    registry = f"123456789012.dkr.ecr{host}"
    done = run("--tag", "7", FOUND=f"{registry}/team/a.b_c-d\n")
    assert done[:2] == (0, f"{registry}/team/a.b_c-d:7\n"), done


@pytest.mark.parametrize(
    "environment",
    [
        {"FOUND_CODE": "1"},
        {"ECR_ERROR": "RepositoryNotFoundException", "CREATE_CODE": "1"},
        {"GIVEN_CODE": "1"},
        {"GIVEN": ""},
        {"GIVEN": "\\n\\n"},
        {"GIVEN": "a warning\\nsecret-of-the-hour\\n"},
        {"GIVEN": "secret-of-the-hour two"},
        {"LOGIN_CODE": "1"},
    ],
    ids=lambda environment: " ".join(f"{k}={v}" for k, v in environment.items()),
)
def test_after_a_failure_nothing_further_is_done(
    run: Callable[..., Done], environment: dict[str, str]
) -> None:
    done = run(**environment)
    assert done.code != 0
    assert done.output == ""
    assert "of-the-hour" not in done.errors
    refused_by_docker = "LOGIN_CODE" in environment
    assert len([call for call in done.calls if call.startswith("docker")]) == refused_by_docker


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--region", "x/../y"),
        ("--region", "eu-west-1\nx"),
        ("--repository", "--help"),
        ("--repository", "a b"),
        ("--tag", "7 --push"),
        ("--tag", "7\n8"),
        ("--tag", ""),
        ("--platform", "--output=/"),
    ],
)
def test_an_options_value_of_another_shape_reaches_no_command(
    run: Callable[..., Done], option: str, value: str
) -> None:
    done = run(option, value)
    assert (done.code, done.output, done.calls) == (2, "", [])
    assert option.removeprefix("--") in done.errors


def test_help_names_all_options(run: Callable[..., Done]) -> None:
    done = run("--help")
    assert (done.code, done.calls) == (0, [])
    accepted = re.search(r"--repository \| .*(?=\))", SCRIPT.read_text())
    assert accepted is not None
    assert all(option in done.output for option in accepted.group().split(" | "))


def test_the_image_has_the_versions_that_are_tested_here() -> None:
    lock = (ROOT / "requirements-dev.txt").read_text()
    locked = dict(re.findall(r"^([a-z-]+)==(\S+)", lock, re.MULTILINE))
    dockerfile = DOCKERFILE.read_text()
    assert f"FROM prefecthq/prefect:{locked['prefect']}-python3." in dockerfile
    for package in ("prefect", "prefect-aws"):
        assert f"{package}=={locked[package]}" in dockerfile


def test_the_image_has_the_flows_that_are_deployed() -> None:
    imported = re.findall(r"^from (\w+) import", (EXAMPLES / "deploy.py").read_text(), re.MULTILINE)
    flows = [f"{name}.py" for name in imported if (EXAMPLES / f"{name}.py").exists()]
    assert len(flows) > 1
    [copied] = re.findall(r"^COPY (.*) /opt/flows/$", DOCKERFILE.read_text(), re.MULTILINE)
    assert sorted(copied.split()) == sorted(flows)
