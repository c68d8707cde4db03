"""`make demo` as a user has it: what it prints, and what it writes."""

import re
from decimal import Decimal
from typing import Any

import pytest
from PIL import Image

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
        for suffix in (".png", ".svg"):
            assert drawn.with_suffix(suffix).stat().st_size > 1000
    save(Image.open(TIMELINE.with_suffix(".png")).convert("RGB"), IMAGES / "timeline.png")
    printed = set(map(shape, output.splitlines()))
    assert len(shown_in_the_readme()) > 15
    assert [line for line in shown_in_the_readme() if shape(line) not in printed] == []
