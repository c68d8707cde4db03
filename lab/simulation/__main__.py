"""`make simulate`: plays the contest, prints its tables, and writes simulation.json and auto.json.

python -m lab.simulation [--runs N] [--seed N] [--changeover SECONDS] [--processes N]
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from lab.simulation.chart import draw
from lab.simulation.figures import figures_of, targets_of
from lab.simulation.grid import Contest, play_all
from lab.simulation.work import platform_of
from lab.tables import console, show

BUILD: Final = Path(__file__).resolve().parents[2] / "build"


def main(
    runs: Annotated[int, typer.Option(min=1, help="Runs in each cell.")] = 960,
    seed: Annotated[int, typer.Option(help="The same seed gives the same figures.")] = 1,
    changeover: Annotated[
        float,
        typer.Option(min=0, help="Seconds from a container's exit until the flow runs again."),
    ] = 60.0,
    processes: Annotated[int, typer.Option(min=1, help="Processes at work.")] = os.cpu_count() or 1,
) -> None:
    """Compare budgets and deadlines on simulated flow runs, by the product's own decisions."""
    contest = Contest(platform_of(changeover), runs, seed)
    found = play_all(contest, processes, lambda line: print(line, file=sys.stderr, flush=True))
    figures = figures_of(contest, found)
    screen = console()
    for title, rows in figures.items():
        show(screen, title, rows)
    BUILD.mkdir(exist_ok=True)
    targets = targets_of(contest, found)
    for name, written in (("simulation", figures), ("auto", targets)):
        (BUILD / f"{name}.json").write_text(json.dumps(written, indent=1) + "\n")
    draw(figures, BUILD / "auto.svg")
    print(json.dumps(targets, indent=1))
    print("written: build/simulation.json, build/auto.json and build/auto.svg")


if __name__ == "__main__":
    typer.run(main)
