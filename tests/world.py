"""Puts together what shows that the product is right where the world differs: `build/world.json`.

Run as a program, after all tests: `python -m tests.world`. `tests/world.toml` names, for each kind
of case, the tests that show it. Fails when one of them did not pass or did not run, when a state
that a person set was lost, or when no failed start was read from an installed worker.
"""

import json
import sys
import tomllib
from typing import Any

from lab.tables import console, show
from tests.tiers import BUILD, ROOT

RESULT = BUILD / "world.json"


def main() -> int:
    outcomes: dict[str, str] = {}
    for path in sorted((BUILD / "outcomes").glob("*.json")):
        outcomes |= json.loads(path.read_text())
    rows = [row_of(**row, outcomes=outcomes) for row in _rows()]
    person, refusals = _read("person-wins"), _read("refusal-seconds")
    result = {
        "rows": rows,
        "start_failures": _read("start-failures"),
        "refusal_seconds": {name: refusals[name] for name in ("p50", "p95")},
        "person_wins": {name: person[name] for name in ("points", "states", "lost")},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    shown = [{**row, "tests": len(row["tests"])} for row in rows]
    show(console(), "Where the world differs", shown)
    figures = {"start failures": len(result["start_failures"]), **result["refusal_seconds"]}
    show(console(), "And", [{**figures, **result["person_wins"]}])
    found = {
        **{f"row {row['row']} is not shown": not row["passed"] for row in rows},
        f"{person['lost']} states of a person were lost": person["lost"],
        "no failed start was read": not result["start_failures"],
    }
    complaints = [complaint for complaint, is_so in found.items() if is_so]
    print("\n".join(f"RED: {complaint}" for complaint in complaints) or "all shown")
    return 1 if complaints else 0


def row_of(row: int, what: str, tests: list[str], outcomes: dict[str, str]) -> dict[str, Any]:
    """Return what became of a row's tests; each names a test, or all of a parametrized one."""
    ran: list[str] = []
    is_shown = True
    for name in tests:
        found = [test for test in outcomes if test == name or test.startswith(f"{name}[")]
        is_shown &= bool(found) and all(outcomes[test] == "passed" for test in found)
        ran += found or [name]
    return {"row": row, "what": what, "tests": ran, "passed": is_shown}


def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tomllib.loads((ROOT / "tests" / "world.toml").read_text())["rows"]
    return rows


def _read(name: str) -> Any:
    return json.loads((BUILD / f"{name}.json").read_text())


if __name__ == "__main__":
    sys.exit(main())
