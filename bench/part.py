"""What a part of the benchmark is, and what it hands back: figures, tables, charts, targets.

A part only measures; printing, drawing, `build/bench.json` and the page are the frame's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Protocol, cast, runtime_checkable

PARTS: Final = ("observer", "floor", "cold", "storm", "sweep")
"""Each is a module of this package, and the order in which they are run and told."""

Figures = dict[str, Any]
"""What a part measured, as JSON takes it: keys are text, and units stand in them."""

Log = Callable[[str], None]
"""Hears a line of progress."""

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """A table for terminal and page. Numbers are put right; None is shown as a hyphen.

    `note` is a sentence or two below it: what is counted, and what is assumed.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """Groups of bars: each of `series` has one value per label. `file` is its name, without suffix.

    `logarithmic`: for values that lie decades apart.
    """

    file: str
    title: str
    unit: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[float]]
    logarithmic: bool = False


class Part(Protocol):
    """A module `bench.<name>`."""

    TITLE: str
    """What is measured, as a heading."""

    def measure(self, log: Log, *, short: bool = False) -> Figures:
        """Measure, with fresh servers for each measurement.

        `short`: smallest sizes, once, for the test that keeps the benchmark from rotting.
        """

    def tables(self, figures: Figures) -> Sequence[Table]:
        """Return what people read; made from figures alone, which may come from a file."""

    def targets(self, figures: Figures) -> Figures:
        """Return this part's share of `build/bench.json`; see `bench.results.BOUNDS`."""


@runtime_checkable
class DrawnPart(Part, Protocol):
    """A part of which the page shows charts as well."""

    def charts(self, figures: Figures) -> Sequence[Chart]:
        """Return what is drawn for the page."""


def ratio(ours: float, theirs: float) -> float:
    """Return ours ÷ theirs, to three digits after the point: below 1 is in our favour."""
    return round(ours / theirs, 3)


def load_part(name: str) -> Part:
    """Return the module of the part, imported late: another part's imports take their time."""
    return cast("Part", import_module(f"bench.{name}"))
