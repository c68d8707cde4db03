"""The runner of the tiers: what ran nothing, or skipped a test in silence, has failed."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests import tiers
from tests.tiers import Running, Tier, check

PASSES = "def test_it(): assert True\n"
FAILS = "def test_it(): assert False\n"
SKIPS = "import pytest\n@pytest.mark.skip(reason='not today')\ndef test_later(): assert True\n"
BREAKS_ITS_SET_UP = (
    "import pytest\n@pytest.fixture\ndef broken(): raise OSError\ndef test_it(broken): ...\n"
)


@pytest.fixture(autouse=True)
def _build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a folder of its own for logs and results."""
    monkeypatch.setattr(tiers, "BUILD", tmp_path / "build")


def run(tier: Tier) -> Running:
    [ended] = tiers.run_stages([[tier]], Console(file=io.StringIO()))
    return ended


@pytest.mark.parametrize("cores", [(), ("-n", "2")], ids=["one process", "xdist"])
@pytest.mark.parametrize(
    ("content", "outcomes", "complaint"),
    [
        (PASSES, {"test_it": "passed"}, ""),
        ("", {}, "no test ran"),
        (FAILS, {"test_it": "failed"}, "pytest exited 1"),
        (BREAKS_ITS_SET_UP, {"test_it": "failed"}, "pytest exited 1"),
        (PASSES + SKIPS, {"test_it": "passed", "test_later": "skipped"}, "test_later was skipped"),
        ("import no_such_module\n", {}, "no test ran"),
    ],
    ids=["passes", "no test", "fails", "a broken set-up", "skips in silence", "a broken file"],
)
def test_a_tier_is_judged_by_what_it_ran(
    tmp_path: Path, content: str, outcomes: dict[str, str], complaint: str, cores: tuple[str, ...]
) -> None:
    file = tmp_path / "test_sample.py"
    file.write_text(content)
    ended = run(tiers.tests("a sample", 60, str(file), *cores))
    assert {test.rpartition("::")[2]: found for test, found in ended.outcomes.items()} == outcomes
    assert ended.is_good is (complaint == "")
    assert complaint == "" or complaint in ended.complaints
    assert ended.total == len(outcomes)


@pytest.mark.parametrize(("code", "is_good"), [(0, True), (3, False)])
def test_a_static_check_is_one_test_that_fails_with_its_command(code: int, is_good: bool) -> None:
    ended = run(
        check(60, "python", "-c", f"print('seen'); raise SystemExit({code})", name="sample")
    )
    assert ended.is_good is is_good
    assert ended.summary()["tests"] == 1
    assert ended.summary()["failed"] == (0 if is_good else 1)
    assert ended.log.read_text() == "seen\n"


def test_the_report_shows_what_failed_the_slowest_tests_and_each_budget_that_was_missed() -> None:
    passed, failed = Running(Tier("good", 1, ("pytest",))), Running(Tier("bad", 99, ("pytest",)))
    for state, outcome in ((passed, "passed"), (failed, "failed")):
        state.log.parent.mkdir(parents=True, exist_ok=True)
        state.log.write_text(f"the output of {state.tier.name}\n")
        for number in range(8):
            heard = {"test": f"tests/test_{state.tier.name}.py::test_{number}"}
            set_up = {**heard, "when": "setup", "seconds": 0.5, "outcome": "passed"}
            call = {**heard, "when": "call", "seconds": number + 0.25, "outcome": outcome}
            for report in (set_up, call):
                state.hear(json.dumps(report))
        state.end(outcome == "failed")
    passed.seconds, failed.seconds = 2.0, 3.0
    screen = io.StringIO()
    assert not tiers.report("make sample", [passed, failed], 5.0, Console(file=screen, width=100))
    shown = screen.getvalue()
    assert "the output of bad" in shown
    assert "the output of good" not in shown
    assert "ok, over its budget" in shown
    slowest = shown.partition("The ten slowest tests:\n")[2].splitlines()[:10]
    assert [line.split()[0] for line in slowest[:3]] == ["7.8", "7.8", "6.8"]
    assert len(slowest) == 10
    assert shown.rstrip().endswith("8 passed, 8 failed in 5s")
    written = json.loads((tiers.BUILD / "tests.json").read_text())
    assert (written["command"], written["seconds"]) == ("make sample", 5.0)
    bad = {"name": "bad", "tests": 8, "failed": 8, "skipped": 0, "seconds": 3.0}
    assert written["tiers"] == [{**bad, "name": "good", "failed": 0, "seconds": 2.0}, bad]


def test_where_there_is_no_terminal_a_line_comes_at_the_beginning_the_end_and_in_between(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tiers, "LINE_EVERY_SECONDS", 0.4)
    slow = check(60, "python", "-c", "import time; time.sleep(5)", name="slow")
    tiers.run_stages([[slow]], Console(file=io.StringIO()))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 4
    assert all(line.startswith("slow ") for line in lines)
    assert lines[-1].endswith("ok")


def test_a_name_that_is_no_tier_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert tiers.main(["unti"]) == 2
    assert "no tier is named unti: there are" in capsys.readouterr().err
