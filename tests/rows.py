"""Puts together which tests show what was promised: `build/world.json` and `build/safe.json`.

Run as a program, after all tests: `python -m tests.rows`. `tests/world.toml` names, for each kind
of case in which the world was not as imagined, the tests that show what is right; `tests/safe.toml`
for each hole of a security review. Fails when one of them did not pass or did not run, and when a
figure beside them shows a loss, or nothing that was tried.
"""

import json
import sys
import tomllib
from typing import Any, Final

from lab.tables import console, show
from tests.tiers import BUILD, ROOT

TABLES: Final = {"world": "Where the world differs", "safe": "What a security review found"}


def main() -> int:
    outcomes: dict[str, str] = {}
    for path in sorted((BUILD / "outcomes").glob("*.json")):
        outcomes |= json.loads(path.read_text())
    person, refusals, poison = map(_read, ("person-wins", "refusal-seconds", "poison"))
    figures: dict[str, dict[str, Any]] = {
        "world": {
            "start_failures": _read("start-failures"),
            "refusal_seconds": {name: refusals[name] for name in ("p50", "p95")},
            "person_wins": {name: person[name] for name in ("points", "states", "lost")},
        },
        "safe": {"poison": poison},
    }
    found = {
        f"{person['lost']} states of a person were lost": person["lost"],
        "no failed start was read": not figures["world"]["start_failures"],
        f"{poison['sweeps_failed']} sweeps failed": poison["sweeps_failed"],
        "poison kept others from repair": not (poison["inputs"] and poison["others_repaired"]),
    }
    screen = console()
    for name, title in TABLES.items():
        rows = [row_of(**row, outcomes=outcomes) for row in rows_of(name)]
        result = {"rows": rows, **figures[name]}
        (BUILD / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
        show(screen, title, [{**row, "tests": len(row["tests"])} for row in rows])
        found |= {f"row {row['row']} of {name} is not shown": not row["passed"] for row in rows}
    show(screen, "And", [{**refusals, **figures["world"]["person_wins"], **poison}])
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


def rows_of(name: str) -> list[dict[str, Any]]:
    """Return the rows of `tests/<name>.toml`."""
    rows: list[dict[str, Any]] = tomllib.loads((ROOT / f"tests/{name}.toml").read_text())["rows"]
    return rows


def _read(name: str) -> Any:
    return json.loads((BUILD / f"{name}.json").read_text())


if __name__ == "__main__":
    sys.exit(main())
