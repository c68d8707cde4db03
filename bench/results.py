"""`build/bench.json`: the ratios that are promised, and beside them all that was measured.

A part that is run alone replaces its own share and leaves the others' as they were.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.machine import ROOT
from bench.part import PARTS, Figures

FILE: Final = ROOT / "build" / "bench.json"
SHORT_FILE: Final = ROOT / "build" / "bench-short.json"

MEASURED: Final = "measured"
"""The key of what parts measured, by part; all other keys are targets."""


@dataclass(frozen=True)
class Bound:
    """A promise: the figure at `path` is at most `most`; `meaning` says what is compared."""

    path: tuple[str, ...]
    most: float
    meaning: str


BOUNDS: Final = (
    Bound(
        ("observer", "standin_1000"), 0.25, "1,000 interruptions on the stand-in, ours ÷ observer"
    ),
    Bound(
        ("observer", "server_1000"), 1.3, "1,000 interruptions on a real server, ours ÷ observer"
    ),
    Bound(("observer", "cpu_per_event"), 0.5, "CPU seconds per event, ours ÷ observer"),
    Bound(("warm_vs_floor",), 1.5, "a warm rescue ÷ the requests it cannot do without"),
    Bound(("cold_vs_bare",), 1.3, "cold start ÷ that of a bare Chalice function"),
    Bound(("zip_bytes",), 2_000_000, "the deployed zip, in bytes"),
    Bound(("peak_rss_mib",), 110, "peak memory of a Lambda, in MiB"),
)
STORM_GROWTH: Final = 12.0
"""A storm of 10,000 may take so many times as long as one of 1,000."""


@dataclass(frozen=True)
class Judgement:
    """A promise and what became of it."""

    meaning: str
    most: float
    found: float

    @property
    def is_kept(self) -> bool:
        """Whether the figure is within its bound."""
        return self.found <= self.most


def load(file: Path = FILE) -> Figures:
    """Return what is on record; empty where nothing is."""
    return dict(json.loads(file.read_text())) if file.exists() else {}


def merge(results: Figures, part: str, targets: Figures, measured: Figures) -> Figures:
    """Return the results with a part's share in place of what it said before."""
    parts = {**results.get(MEASURED, {}), part: measured}
    parts = {name: parts[name] for name in PARTS if name in parts}
    return {**{k: v for k, v in results.items() if k != MEASURED}, **targets, MEASURED: parts}


def save(results: Figures, file: Path = FILE) -> None:
    """Write the results, targets first."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(results, indent=2) + "\n")


def judge(results: Figures) -> Sequence[Judgement]:
    """Return how the promises stand, those on which there are figures."""
    return [*_judge_bounds(results), *_judge_storm(results.get("storm", {}))]


def _judge_bounds(results: Figures) -> Iterator[Judgement]:
    for bound in BOUNDS:
        found: Any = results
        for key in bound.path:
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is not None:
            yield Judgement(bound.meaning, bound.most, found)


def _judge_storm(storm: Mapping[str, float]) -> Iterator[Judgement]:
    if "1000" in storm and "10000" in storm:
        growth = round(storm["10000"] / storm["1000"], 2)
        yield Judgement("a storm of 10,000 ÷ one of 1,000", STORM_GROWTH, growth)
