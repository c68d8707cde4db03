"""`docs/benchmarks.md`, from `build/bench.json`: no figure in its tables is written by hand.

The last section, what profiles showed, is written by hand, and left as it is.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench import chart, results
from bench.machine import ROOT
from bench.part import PARTS, DrawnPart, Figures, load_part
from bench.show import markdown_of, table_of

PAGE: Final = ROOT / "docs" / "benchmarks.md"
IMAGES: Final = ROOT / "docs" / "images"

HEAD: Final = """# Benchmarks

Measured by `make bench`, which writes this page and `build/bench.json`. Where prefect-spot is
measured against something, both sides ran in one run, on the same inputs, in turn, several times,
with fresh servers for each measurement; a figure is the median, and a ratio is ours ÷ the other's:
below 1 is in our favour. Prefect's server is the real one, with PostgreSQL, or a stand-in where it
says so; AWS is emulated. So times are this machine's, and ratios are what to look at.
"""

BY_HAND: Final = "## What profiles showed"


def write(found: Figures, page: Path = PAGE, images: Path = IMAGES) -> None:
    """Write the page and draw its charts; what has not been measured is named."""
    before = page.read_text() if page.exists() else ""
    by_hand = before[before.find(BY_HAND) :] if BY_HAND in before else ""
    page.write_text("\n".join([HEAD, *_sections(found, images), by_hand]))


def _sections(found: Figures, images: Path) -> Iterator[str]:
    judgements = results.judge(found)
    if judgements:
        yield markdown_of(table_of(judgements)) + "\n"
    measured_parts = found.get(results.MEASURED, {})
    missing = [name for name in PARTS if name not in measured_parts]
    if missing:
        yield f"Not measured yet: {', '.join(missing)}.\n"
    for name, measured in measured_parts.items():
        part = load_part(name)
        yield f"## {part.TITLE}\n"
        for table in part.tables(measured["figures"]):
            yield markdown_of(table) + "\n"
        for drawing in part.charts(measured["figures"]) if isinstance(part, DrawnPart) else ():
            file = chart.draw(drawing, images)
            yield f"![{drawing.title}](images/{file.name})\n"
    yield "## On what, when, and how to repeat it\n"
    yield from _origins(found)


def _origins(found: Figures) -> Iterator[str]:
    yield (
        "`make bench` measures everything again; `.venv/bin/python -m bench floor cold` only those"
        " parts. Nothing else should be running on the machine meanwhile.\n"
    )
    for name, measured in found.get(results.MEASURED, {}).items():
        machine = "; ".join(f"{key} {value}" for key, value in measured["machine"].items())
        yield f"- *{name}*, {measured['at']}, in {measured['seconds']:.0f} s: {machine}."
    yield ""
