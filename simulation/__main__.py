"""`make simulate`: plays the contest, prints its tables, and writes figures and chart.

python -m simulation [--runs N] [--seed N] [--trace FILE] [--changeover SECONDS] [--docs]
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from simulation.chart import draw
from simulation.figures import everything_of, figures_of
from simulation.grid import Contest, Grid, play_all
from simulation.tables import show
from simulation.trace import TraceError, read_trace
from simulation.work import platform_of, shipped_rates

ROOT: Final = Path(__file__).resolve().parent.parent
BUILD: Final = ROOT / "build"
DATA: Final = ROOT / "docs" / "data" / "simulation.json"
IMAGE: Final = ROOT / "docs" / "images" / "simulation.png"

RUNS: Final = 240
SEED: Final = 1
CHANGEOVER_SECONDS: Final = 60.0


def main(
    runs: Annotated[int, typer.Option(min=1, help="Runs in each cell.")] = RUNS,
    seed: Annotated[int, typer.Option(help="The same seed gives the same figures.")] = SEED,
    trace: Annotated[
        Path | None,
        typer.Option(help="A file with start and end of Spot's availability, a pair a line."),
    ] = None,
    changeover: Annotated[
        float,
        typer.Option(min=0, help="Seconds from a container's exit until the flow runs again."),
    ] = CHANGEOVER_SECONDS,
    processes: Annotated[int, typer.Option(min=1, help="Processes at work.")] = os.cpu_count() or 1,
    docs: Annotated[
        bool, typer.Option("--docs", help="Write the documentation's figures and chart anew.")
    ] = False,
) -> None:
    """Compare budgets and guards on simulated flow runs, by the product's own decisions."""
    try:
        grid = Grid(trace=read_trace(trace) if trace else None)
    except TraceError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    platform = platform_of(shipped_rates(), changeover_seconds=changeover)
    contest = Contest(grid, platform, runs, seed)
    found = play_all(contest, processes, lambda line: print(line, file=sys.stderr, flush=True))
    figures = figures_of(contest, found)
    show(figures)
    BUILD.mkdir(exist_ok=True)
    whole = {**figures, "everything": everything_of(found)}
    (BUILD / "simulation.json").write_text(json.dumps(whole, indent=1) + "\n")
    draw(figures["costs"], BUILD / "simulation.png")
    written = ["build/simulation.json", "build/simulation.png"]
    if docs:
        DATA.parent.mkdir(exist_ok=True)
        DATA.write_text(json.dumps(figures, separators=(",", ":")) + "\n")
        draw(figures["costs"], IMAGE)
        written += [str(path.relative_to(ROOT)) for path in (DATA, IMAGE)]
    print(f"written: {', '.join(written)}")


if __name__ == "__main__":
    typer.run(main)
