"""`build/bench.json`, `docs/benchmarks.md` and the tables on a terminal, all from the same rows.

A part that is run alone replaces its own share and leaves the others' as they were. The page's last
section, what profiles showed, is written by hand, and left as it is.
"""

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from lab.bench.part import PARTS, ROOT
from lab.tables import Row, markdown

FILE: Final = ROOT / "build" / "bench.json"
SHORT_FILE: Final = ROOT / "build" / "bench-short.json"
PAGE: Final = ROOT / "docs" / "benchmarks.md"

Found = dict[str, Any]
"""The content of `build/bench.json`: the targets, and under "measured" all else by part."""

PROMISES: Final = (
    ("1,000 interruptions on the stand-in, prefect-spot ÷ observer", "observer standin_1000", 0.25),
    ("1,000 interruptions on a real server, prefect-spot ÷ observer", "observer server_1000", 1.3),
    ("CPU seconds per event, prefect-spot ÷ observer", "observer cpu_per_event", 0.5),
    ("a warm rescue ÷ the requests it cannot do without", "warm_vs_floor", 1.5),
    ("cold start ÷ that of a bare Chalice function", "cold_vs_bare", 1.3),
    ("the deployed zip, in bytes", "zip_bytes", 2_000_000),
    ("peak memory of a Lambda, in MiB", "peak_rss_mib", 110),
    ("a storm of 10,000 ÷ one of 1,000", "storm_growth", 12),
)
"""What is promised, where its figure is found, and what it is at most."""

HEAD: Final = """# Benchmarks

How prefect-spot compares with prefect-aws's observer, and with the observer and an automation: in
time, in server load, and in what each gets right.

`make bench` measures everything and writes this page and `build/bench.json`. Both sides of a
comparison run on the same inputs, in turn; a figure is the median of its rounds, and a ratio is
prefect-spot's figure ÷ the other side's: below 1, prefect-spot is better. Prefect's server is the
real one, with PostgreSQL, or a stand-in where the table says so; AWS is emulated. Times are those
of one machine: compare the ratios.
"""
ORIGINS: Final = "## On what was it measured, and when?"
BY_HAND: Final = "## What is slower, and why?"


def load(file: Path) -> Found:
    """Return what is on record; empty where nothing is."""
    return dict(json.loads(file.read_text())) if file.exists() else {}


def merge(found: Found, part: str, targets: Found, measured: Found) -> Found:
    """Return the record with a part's share in place of its older one; targets first."""
    parts = {**found.get("measured", {}), part: measured}
    ordered = {name: parts[name] for name in PARTS if name in parts}
    others = {key: value for key, value in found.items() if key != "measured"}
    return {**others, **targets, "measured": ordered}


def save(found: Found, file: Path) -> None:
    """Write the record."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(found, indent=2) + "\n")


def judged(found: Found) -> list[Row]:
    """Return how the promises stand, those on which there are figures."""
    rows = []
    for promise, place, most in PROMISES:
        figure: Any = found
        for key in place.split():
            figure = figure.get(key, {})
        if figure != {}:
            kept = "kept" if figure <= most else "MISSED"
            rows.append({"promise": promise, "at most": most, "found": figure, "": kept})
    return rows


def write_page(found: Found, page: Path = PAGE) -> None:
    """Write the page; what has not been measured is named."""
    by_hand = page.read_text().partition(BY_HAND)[2]
    page.write_text("\n".join([HEAD, *_sections(found), BY_HAND + by_hand]))


def _sections(found: Found) -> Iterator[str]:
    parts = found.get("measured", {})
    yield markdown("What is promised, and what was found", judged(found))
    missing = [name for name in PARTS if name not in parts]
    if missing:
        yield f"Not measured yet: {', '.join(missing)}.\n"
    for name, measured in parts.items():
        part = import_module(f"lab.bench.{name}")
        yield f"## {part.TITLE}\n\n{part.answer(found)}\n"
        for title, rows in measured["figures"].items():
            yield markdown(title, rows)
            if title in part.NOTES:
                yield f"{part.NOTES[title]}\n"
    minutes = sum(measured["seconds"] for measured in parts.values()) / 60
    again = "`.venv/bin/python -m lab.bench floor cold` measures only those parts"
    yield f"{ORIGINS}\n\nOn an otherwise idle machine, in {minutes:.0f} minutes; {again}.\n"
    on: dict[str, list[str]] = {}
    for name, measured in parts.items():
        machine = "; ".join(f"{key} {value}" for key, value in measured["machine"].items())
        line = f"*{name}*, {measured['at']}, in {measured['seconds']:.0f} s"
        on.setdefault(machine, []).append(line)
    for machine, lines in on.items():
        yield f"- {machine}: {'; '.join(lines)}."
    yield ""
