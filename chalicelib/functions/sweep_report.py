"""What a sweep did, and the runs that it could not judge: logged, counted once each, and kept for
the next sweep and for `spotctl status`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from chalicelib.core.model.sweeping import Found, Unjudged, UnreadRun
from chalicelib.core.model.text import one_line
from chalicelib.core.ports import Context

UNJUDGED_FOR: Final = timedelta(hours=1)
"""How long a run that could not be judged is kept, and named by `spotctl status`, once it is no
longer met: it left Prefect's set."""
MOST_UNJUDGED: Final = 500
"""How many of those are kept, the last ones: their item in the table is read every minute."""
UNREAD: Final = "Prefect does not return it, or not readably"
"""Why a run is not judged that stands in Prefect's set; `why` in its log line says more."""


@dataclass(slots=True)
class SweepReport:
    """What a sweep did. `light`: it looked at failed submissions only. `finished`: it came to the
    end of all runs, and left no bookmark.

    `unjudged`: runs that could not be judged, by reason, each counted once until it can; `failed`:
    runs that were not repaired. `paused`: since when and by whom, where it therefore billed only.
    """

    seen: int = 0
    stranded: int = 0
    failed: int = 0
    billed: int = 0
    paused: str = ""
    light: bool = False
    finished: bool = False
    unjudged: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)

    @property
    def summary(self) -> dict[str, object]:
        """What the function returns to Lambda."""
        figures = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "decisions"}
        if not self.paused:
            del figures["paused"]
        return {**figures, "unjudged": dict(self.unjudged), **self.decisions}


class UnjudgedRuns:
    """Those of this sweep and of earlier ones. `counted`: by reason, those that are new."""

    def __init__(
        self, context: Context, earlier: Mapping[UUID, Unjudged], counted: Counter[str]
    ) -> None:
        self._context = context
        self._met = dict(earlier)
        self._counted = counted

    def add(self, key: UUID, reason: str, *, beside: str = "", **more: str) -> None:
        """Count the run, if it is new; `beside`: where it stands, for one whose id is not known."""
        reason = one_line(reason).encode("ascii", "replace").decode()
        if key not in self._met:
            self._counted[reason] += 1
            which = {"place": beside} if beside else {"flow_run_id": str(key)}
            self._context.log.info("could not be judged", **which, reason=reason, **more)
        shown = f"{reason}; it stands {beside}" if beside else reason
        self._met[key] = Unjudged(shown, self._context.now())

    def add_unread(self, page: Sequence[Found]) -> None:
        """Count those of a page that could not be read, in the order of their set."""
        ids = [None, *(found.id for found in page), None]
        for before, found, after in zip(ids, page, ids[2:], strict=False):
            if isinstance(found, UnreadRun):
                why = one_line(found.reason, 300)
                place = f"between the flow runs {before} and {after}"
                if found.id:
                    self.add(found.id, UNREAD, why=why)
                else:
                    self.add(uuid5(NAMESPACE_URL, place), UNREAD, beside=place, why=why)

    def forget(self, judged: Iterable[UUID]) -> None:
        """Forget these: they were judged."""
        for key in judged:
            self._met.pop(key, None)

    def kept(self) -> Mapping[UUID, Unjudged]:
        """Return those that the next sweep has to know, newest last."""
        now = self._context.now()
        met = [kept for kept in self._met.items() if now - kept[1].met_at < UNJUDGED_FOR]
        return dict(sorted(met, key=lambda kept: kept[1].met_at)[-MOST_UNJUDGED:])
