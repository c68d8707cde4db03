"""Puts the cases of all fault modules together: a table, and `build/faults.json`.

Run as a program, after all tests and `tests.faults.mutants`: `python -m tests.faults.report`. Fails
when something was lost or run twice, when not every recorded point was died at, or when a planted
mistake went unnoticed; also when nothing was tried.
"""

import json
import sys
from typing import Any

from lab.tables import console, show
from tests.faults import mutants
from tests.faults.ledger import FOLDER

RESULT = FOLDER.parent / "faults.json"
SUMS = ("kill_points", "recorded_points", "lost", "run_twice")


def main() -> int:
    parts = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
    cases: list[dict[str, Any]] = [case for part in parts for case in part["cases"]]
    planted = json.loads(mutants.RESULT.read_text())
    noticed = {"planted": planted["planted"], "caught": planted["caught_by_all"]}
    sums = {name: sum(case[name] for case in cases) for name in SUMS}
    RESULT.write_text(json.dumps({"cases": cases, **sums, "mutants": noticed}, indent=2) + "\n")
    columns = ("name", "tries", "lost", "run_twice", "seconds")
    screen = console()
    show(screen, "Faults", [{name: case[name] for name in columns} for case in cases])
    show(screen, "All together", [{**sums, **noticed}])
    found = {
        "nothing was tried": not cases or not sums["recorded_points"] or not noticed["planted"],
        f"{sums['lost']} lost": sums["lost"],
        f"{sums['run_twice']} run twice": sums["run_twice"],
        "not every recorded point was died at": sums["kill_points"] != sums["recorded_points"],
        "a planted mistake went unnoticed": noticed["planted"] != noticed["caught"],
    }
    complaints = [complaint for complaint, is_so in found.items() if is_so]
    print("\n".join(f"RED: {complaint}" for complaint in complaints) or "nothing lost")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
