"""How large a run's record may grow: DynamoDB takes no item of more than 400 KB."""

from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

MOST_BYTES: Final = 200_000
"""Of a record's interruptions; half as much of its failed starts, a quarter of its subflows."""
LONGEST_FIELD: Final = 600
"""Characters kept of a text in a record."""

_Ended = TypeVar("_Ended")
_Record = TypeVar("_Record", bound=Any)


def fitting_record(record: _Record) -> _Record:
    """Return what of a RunRecord the table takes; the starts lost in what goes stay counted."""
    kept = replace(
        record,
        interruptions=fitting(record.interruptions, MOST_BYTES),
        failed_starts=fitting(record.failed_starts, MOST_BYTES // 2),
    )
    lost = len(lost_starts(record) - lost_starts(kept))
    return replace(kept, lost_before=record.lost_before + lost)


def lost_starts(record: Any) -> set[int]:
    """Return the `run_count` of each start that an interruption or a dead host on record took."""
    ended = (*record.interruptions.values(), *record.failed_starts.values())
    return {each.lost_start for each in ended} - {0}


def fitting(recorded: Mapping[str, Any], most_bytes: int) -> Mapping[str, Any]:
    """Return what is not longer than that in all, without what was recorded first.

    The last one stays. What Python shows of a value is longer than its item in DynamoDB.
    """
    sizes = {key: len(repr((key, each)).encode()) for key, each in recorded.items()}
    kept, size = dict(recorded), sum(sizes.values())
    for key in sorted(recorded, key=partial(_recorded_at, recorded))[:-1]:
        if size <= most_bytes:
            break
        size -= sizes[key]
        del kept[key]
    return kept


def cut(ended: _Ended) -> _Ended:
    """Return a dataclass with its texts cut."""
    texts = {f.name: getattr(ended, f.name) for f in fields(ended)}  # type: ignore[arg-type]  # one
    short = {name: text[:LONGEST_FIELD] for name, text in texts.items() if isinstance(text, str)}
    return replace(ended, **short)  # type: ignore[type-var]  # the same


def _recorded_at(recorded: Mapping[str, Any], key: str) -> float:
    at: datetime | None = getattr(recorded[key], "recorded_at", None)
    return at.timestamp() if at else 0.0
