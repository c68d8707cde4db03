"""What the fault cases came to, in `build/faults/`, a file for each module; see `report.py`."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from localcloud.oracle import Fault, Verdict

FULL = os.environ.get("FAULTS") == "full"
"""Whether all of it is to be tried, as `make faults` does; `make test` has a short form."""

FOLDER = Path(__file__).parent.parent.parent / "build" / "faults"


@dataclass
class Case:
    """One kind of misfortune: how often it was tried, and what the oracle found."""

    name: str
    tries: int = 0
    lost: int = 0
    run_twice: int = 0
    seconds: float = 0.0

    def count(self, verdict: Verdict, tries: int = 1) -> None:
        self.tries += tries
        self.lost += verdict.count(Fault.LOST)
        self.run_twice += verdict.count(Fault.RUN_TWICE)


@dataclass
class Ledger:
    """The cases of one module, and figures that are not cases."""

    module: str
    cases: list[Case] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def case(self, name: str) -> Iterator[Case]:
        case = Case(name)
        self.cases.append(case)
        began = time.monotonic()
        try:
            yield case
        finally:
            case.seconds = round(time.monotonic() - began, 1)
            self.write()

    def note(self, name: str, verdict: Verdict, seconds: float, tries: int = 1) -> None:
        """Add a case that is over already."""
        case = Case(name, seconds=round(seconds, 1))
        case.count(verdict, tries)
        self.cases.append(case)
        self.write()

    def write(self) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        content = {"cases": [asdict(case) for case in self.cases], **self.figures}
        (FOLDER / f"{self.module}.json").write_text(json.dumps(content, indent=2) + "\n")
