"""Puts the cases of all fault modules together: a table, and `build/faults.json`.

Run as a program, after all tests and `tests.faults.mutants`: `python -m tests.faults.report`. Fails
when something was lost or run twice, when not every recorded point was died at, or when a planted
mistake went unnoticed.
"""

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.faults import mutants
from tests.faults.ledger import FOLDER

RESULT = FOLDER.parent / "faults.json"


def main() -> int:
    parts = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
    result = together(parts, json.loads(mutants.RESULT.read_text()))
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    show(result)
    bad = complaints(result)
    for complaint in bad:
        print(f"RED: {complaint}")
    return 1 if bad else 0


def together(parts: list[dict[str, Any]], planted: dict[str, Any]) -> dict[str, Any]:
    """Merge the parts; the totals are sums over all cases. `planted`: `build/mutants.json`."""
    cases = [case for part in parts for case in part["cases"]]
    return {
        "cases": cases,
        "kill_points": sum(case["kill_points"] for case in cases),
        "recorded_points": sum(case["recorded_points"] for case in cases),
        "mutants": {"planted": planted["planted"], "caught": planted["caught_by_all"]},
        "lost": sum(case["lost"] for case in cases),
        "run_twice": sum(case["run_twice"] for case in cases),
    }


def complaints(result: dict[str, Any]) -> list[str]:
    """Say what is wrong with a result; nothing tried is wrong as well."""
    noticed = result["mutants"]
    found = {
        "no case was tried": not result["cases"],
        f"{result['lost']} lost": result["lost"],
        f"{result['run_twice']} run twice": result["run_twice"],
        "no point was recorded": not result["recorded_points"],
        "not every recorded point was died at": result["kill_points"] != result["recorded_points"],
        "no mistake was planted": not noticed["planted"],
        "a planted mistake went unnoticed": noticed["planted"] != noticed["caught"],
    }
    return [complaint for complaint, is_so in found.items() if is_so]


def show(result: dict[str, Any]) -> None:
    table = Table(title="Faults")
    table.add_column("case")
    for column in ("tries", "lost", "run twice", "seconds"):
        table.add_column(column, justify="right")
    for case in result["cases"]:
        figures = (case["tries"], case["lost"], case["run_twice"], f"{case.get('seconds', 0):.1f}")
        table.add_row(case["name"], *map(str, figures))
    console = Console(width=110)
    console.print(table)
    noticed = result["mutants"]
    console.print(
        f"died at {result['kill_points']} of {result['recorded_points']} recorded points;"
        f" {noticed['caught']} of {noticed['planted']} planted mistakes noticed;"
        f" lost {result['lost']}, run twice {result['run_twice']}"
    )
    console.print(f"Written: {RESULT.relative_to(Path.cwd())}")


if __name__ == "__main__":
    sys.exit(main())
