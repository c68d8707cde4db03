"""`make demo` as a user has it: what it prints, what it writes, and what it invites to try."""

import json
import re
import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from shlex import quote
from typing import Any, Final

import psutil
import pytest
from PIL import Image

from localcloud import playground
from localcloud.cloud import wait_for
from localcloud.demo import CHART, TIMELINE
from localcloud.deployment import PROJECT
from tests.ui.conftest import Played
from tests.ui.picture import save
from tests.ui.test_prefect_ui import IMAGES

pytestmark = pytest.mark.timeout(900)


def shape(line: str) -> str:
    """A line that the demo prints without what is different each time: numbers, names, widths."""
    named = re.sub(r"([Ff]low run) [a-z]+(-[a-z]+)+", r"\1 NAME", line)
    named = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", named)
    return " ".join(re.sub(r"\d[\d.:]*", "N", named).split())


def shown_in_the_readme() -> list[str]:
    block = (PROJECT / "README.md").read_text().partition("```text\n")[2].partition("```")[0]
    return [line for line in block.splitlines() if re.search(r"\w", line)]


def assert_replayed(result: dict[str, Any]) -> None:
    """Under the settings it had, the record gives the demo's own figures once more, to 1e-8 USD."""
    replay, savings = result["replay"], result["savings"]
    assert replay["as_recorded"] == replay["same_settings"] == replay["other_settings"]
    recorded = replay["as_recorded"]
    for amount in ("cost_usd", "on_demand_usd", "savings_usd", "wasted_usd", "net_savings_usd"):
        assert Decimal(recorded[amount]) == Decimal(savings[amount]), amount
    for count in ("runs", "attempts", "interruptions", "spot_reruns", "on_demand_reruns"):
        assert recorded[count] == savings[count], count
    assert recorded["finished_runs"] == 1 + len(result["children"])


def test_the_demo_ends_on_fargate_after_three_interruptions(played: Played) -> None:
    output, result = played.output, played.result
    run, savings, attempts = result["flow_run"], result["savings"], result["attempts"]
    assert (run["state"], run["interruptions"], result["budget"]) == ("COMPLETED", 3, 2)
    assert len({attempt["task"] for attempt in attempts}) == 4
    assert [attempt["capacity"] for attempt in attempts] == ["FARGATE_SPOT"] * 3 + ["FARGATE"]
    for attempt in attempts[:3]:
        assert attempt["stop_code"] == "SpotInterruption"
        assert attempt["reaction_seconds"] > 0
    assert result["oracle"] == {"lost": 0, "run_twice": 0, "wrong_capacity": 0}
    assert [child["state"] for child in result["children"]] == ["COMPLETED"], "one child, once"
    assert (savings["attempts"], savings["interruptions"]) == (5, 3), "four tasks, and the child's"
    assert (savings["spot_reruns"], savings["on_demand_reruns"]) == (2, 1)
    assert_replayed(result)
    for drawn in (CHART, TIMELINE):
        assert drawn.with_suffix(".svg").stat().st_size > 1000
        save(Image.open(drawn.with_suffix(".png")).convert("RGB"), IMAGES / f"{drawn.name}.png")
    printed = set(map(shape, output.splitlines()))
    assert len(shown_in_the_readme()) > 8
    assert [line for line in shown_in_the_readme() if shape(line) not in printed] == []


Shell = Callable[[str], str]


@pytest.fixture
def shell(played: Played, tmp_path: Path) -> Shell:
    """Runs a command as a person does who did what was printed first: where they are, with theirs.

    Returns what it prints; it has to end well.
    """
    own = {"AWS_PROFILE": "prod", "PREFECT_API_KEY": "pnu_mine", "PREFECT_PROFILE": "prod"}

    def run(command: str) -> str:
        finished = subprocess.run(
            ["sh", "-c", f"{played.to_try[0]}\n{command}"],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **own},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert finished.returncode == 0, finished
        return finished.stdout

    return run


def answered(text: str, **expected: object) -> None:
    answer = json.loads(text)
    assert {name: answer[name] for name in expected} == expected


def check_report(text: str) -> None:
    names = {row["deployment"] for row in json.loads(text)["deployments"]}
    assert {"nightly-sales/spot", "exchange-rates/spot"} <= names


def check_story(text: str) -> None:
    attempts = json.loads(text)["attempts"]
    assert [each["capacity"] for each in attempts] == ["FARGATE_SPOT"] * 3 + ["FARGATE"]


def check_replay(text: str) -> None:
    replayed = json.loads(text)
    assert replayed["changes"] == {"SPOT_RETRIES": "0"}
    figures = (replayed["same_settings"], replayed["other_settings"])
    assert [each["spot_reruns"] for each in figures] == [2, 0], "it shows a difference"


TO_TRY: Final[dict[str, Callable[[str], None]]] = {
    "spotctl status": lambda text: answered(text, ok=True),
    "spotctl report": check_report,
    "spotctl explain RUN": check_story,
    "spotctl replay --set SPOT_RETRIES=0": check_replay,
    "spotctl drill --start nightly-sales/spot --yes": lambda text: answered(text, passed=True),
}


@pytest.mark.parametrize("command", TO_TRY)
def test_what_the_demo_invites_to_try_works(command: str, shell: Shell, played: Played) -> None:
    to_try = {each.replace(played.run["name"], "RUN"): each for each in played.to_try[1:]}
    assert list(to_try) == list(TO_TRY)
    TO_TRY[command](shell(to_try[command]))


def test_the_kept_demo_goes_on_billing_and_its_end_leaves_nothing(
    shell: Shell, played: Played, tmp_path: Path
) -> None:
    def all_billed() -> bool:
        report = json.loads(shell("spotctl report"))
        rows = [*report["deployments"], report["drills"]]
        billed = {row["deployment"]: row["attempts"] for row in rows}
        return billed == {
            "nightly-sales/spot": 5,
            "exchange-rates/spot": 2,
            report["drills"]["deployment"]: 1,  # the attempt that was drilled; its rerun is above
        }

    # What `meter` left is billed by the next sweep of all runs, every five minutes.
    wait_for("the bills of what was tried", 400, all_billed, every_seconds=5)
    env_file, processes = playground.FILE, psutil.Process(played.process.pid).children(True)
    assert env_file.stat().st_mode & 0o777 == 0o600
    assert played.to_try[0] == f". {quote(str(env_file))}"
    kept = tmp_path / "kept.env"
    kept.write_text(env_file.read_text())
    played.end()
    assert not env_file.exists()
    assert not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    later = subprocess.run(
        ["sh", "-c", f". {kept}; env"], capture_output=True, text=True, check=True
    )
    assert "error: this demo has ended" in later.stderr
    assert "127.0.0.1" not in later.stdout
