"""What the fault cases came to, in `build/faults/`, a file for each case; see `report.py`.

Tests run in several processes: a file for each case is written by one of them only.
"""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from localcloud.oracle import Fault, Verdict

FOLDER = Path(__file__).parent.parent.parent / "build" / "faults"


@dataclass
class Case:
    """One kind of misfortune: how often it was tried, and what the oracle found.

    `recorded_points`: where an undisturbed handler was seen to be; `kill_points`: where it died.
    """

    name: str
    tries: int = 0
    lost: int = 0
    run_twice: int = 0
    seconds: float = 0.0
    recorded_points: int = 0
    kill_points: int = 0

    def count(self, verdict: Verdict, tries: int = 1) -> None:
        self.tries += tries
        self.lost += verdict.count(Fault.LOST)
        self.run_twice += verdict.count(Fault.RUN_TWICE)


@dataclass
class Ledger:
    """The cases of one module, and figures that are not cases."""

    module: str
    figures: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def case(self, name: str) -> Iterator[Case]:
        case = Case(name)
        began = time.monotonic()
        try:
            yield case
        finally:
            case.seconds = round(time.monotonic() - began, 1)
            self._write(case)

    def note(self, name: str, verdict: Verdict, seconds: float, tries: int = 1) -> None:
        """Add a case that is over already."""
        case = Case(name, seconds=round(seconds, 1))
        case.count(verdict, tries)
        self._write(case)

    def _write(self, case: Case) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        file = re.sub(r"\W+", "-", f"{self.module} {case.name}")
        content = {"cases": [asdict(case)], **self.figures}
        (FOLDER / f"{file}.json").write_text(json.dumps(content, indent=2) + "\n")
