"""The story as a timeline: a row per task, its bar by capacity, cost beside it.

A file of its own, because matplotlib takes a second to import. It needs no display. The picture
has its own background, so that it reads on a light page and on a dark one.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT
from chalicelib.core.money.report import in_usd
from spotctl.chart import drawable
from spotctl.explain.model import NEVER, Attempt, FailedToStart, Story
from spotctl.explain.show import lasted, money_in_words, usd_of, waiting_in_words, work_in_words
from spotctl.explain.work import Fate, Work

MOST_ROWS: Final = 32
"""Rows that are drawn: of more, the first few and the last."""
LONGEST_TEXT: Final = 120

_INK, _GREY, _PAPER, _GRID = "#1f2328", "#59636e", "#ffffff", "#d1d9e0"
_RED, _GREEN = "#cf222e", "#1a7f37"
_SPOT, _ON_DEMAND, _UNKNOWN = "#0969da", "#bf7a00", "#818b98"
_COLOURS: Final[Mapping[str, str]] = {FARGATE_SPOT: _SPOT, FARGATE: _ON_DEMAND}
_WORK: Final[Mapping[Fate, str]] = {
    Fate.KEPT: "#2da44e",
    Fate.DONE: "#2da44e",
    Fate.SKIPPED: "#afb8c1",
    Fate.LOST: _RED,
    Fate.FAILED: _RED,
    Fate.RUNNING: "#54aeff",
}
_REPEATED: Final = "#8250df"
_CHARACTER: Final = 0.0088
_LEFT, _RIGHT = -0.15, 1.19
"""A character, and how far a text may go beyond both ends, of the timeline's length."""
_HOUR: Final = 3600
_TICKS: Final = (
    *(1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 2 * 3600, 3 * 3600, 6 * 3600),
    *(12 * 3600, 86400, 2 * 86400, 7 * 86400, 14 * 86400),
)
_BAR, _STRIP, _TOP = 0.26, 0.11, 0.17
"""Heights, of a row's one: of the bar and the strip, and where the text above the bar stands."""
_WIDTH, _PER_ROW, _PER_LINE, _BELOW = 10.0, 0.95, 0.27, 0.85
"""Inches."""
_PALE: Final = 0.35
_SHORTEST, _SHORTEST_LOST = 0.004, 0.009
"""What is drawn of the shortest bar or task run, of the timeline's length."""

Row = Attempt | FailedToStart


def draw(story: Story, png: Path, svg: Path) -> None:
    """Write the timeline to both files. Raises OSError where they cannot be written."""
    rows, left_out = _rows(story)
    head = list(_head(story, left_out))
    above = 0.14 + _PER_LINE * len(head)
    height = above + _BELOW + _PER_ROW * max(1, len(rows))
    figure = Figure(figsize=(_WIDTH, height), facecolor=_PAPER)
    axes = figure.subplots()
    figure.subplots_adjust(0.115, _BELOW / height, 0.855, 1 - above / height)
    _Timeline(axes, story).draw(rows)
    for line, (text, length, look) in enumerate(head):
        y = 1 - (0.24 + _PER_LINE * line) / height
        shown = _plain(text, length)
        figure.text(0.012, y, shown, ha="left", va="center", parse_math=False, **look)
    _legend(figure)
    figure.savefig(png, dpi=140)
    # Without its date, the same story gives the same file.
    figure.savefig(svg, metadata={"Date": None})


def _rows(story: Story) -> tuple[list[Row], int]:
    """Tasks and failed starts by time, at most `MOST_ROWS`; and how many are left out."""
    rows: list[Row] = [*story.attempts, *story.failed_starts]
    rows.sort(key=lambda row: row.order if isinstance(row, Attempt) else row.at or NEVER)
    left_out = max(0, len(rows) - MOST_ROWS)
    first = MOST_ROWS // 4
    return [*rows[:first], *rows[first + left_out :]], left_out


class _Timeline:
    """The axes: seconds since the beginning from left to right, a row per task from the top."""

    def __init__(self, axes: Axes, story: Story) -> None:
        self._axes, self._story = axes, story
        starts = [failed.at for failed in story.failed_starts if failed.at]
        known = [at for at in (story.began_at, *starts) if at]
        self._zero = min(known, default=None)
        ends = [at for at in (story.ended_at, *starts) if at]
        self._length = max([self._x(at) for at in ends] + [1.0])

    def draw(self, rows: Sequence[Row]) -> None:
        axes = self._axes
        axes.set_xlim(-0.01 * self._length, 1.02 * self._length)
        axes.set_ylim(len(rows) - 0.48, -0.55)
        before: tuple[int, Attempt] | None = None
        for place, row in enumerate(rows):
            if place:
                axes.axhline(place - 0.53, color=_GRID, linewidth=0.6)
            if isinstance(row, FailedToStart):
                self._failed(place, row)
                continue
            if before is not None:
                self._gap(place, *before, row)
            self._attempt(place, row)
            before = place, row
        if not rows:
            self._text(0, 0, "no task of this run is known", _GREY)
            axes.set_ylim(0.5, -0.5)
        self._labels(rows)
        self._ticks()

    def _attempt(self, place: int, attempt: Attempt) -> None:
        """The bar: pale until the flow's code runs and after the exit, striped from the warning."""
        begin = attempt.began_at or attempt.started_at or attempt.running_at or attempt.order
        end = (
            attempt.ended_at
            or attempt.exited_at
            or (self._story.ended_at if attempt.is_live else None)
        )
        if begin is NEVER:
            self._text(0, place, "its times are not known", _GREY)
            return
        start, stop = self._x(begin), self._x(end or begin)
        colour = _COLOURS.get(attempt.capacity, _UNKNOWN)
        gone = min(max(self._x(attempt.exited_at or end or begin), start), stop)
        runs = min(max(self._x(attempt.running_at or begin), start), gone)
        self._bar(place, start, runs, color=colour, alpha=_PALE)
        self._bar(place, runs, gone, color=colour, least=_SHORTEST)
        self._bar(place, gone, stop, color=colour, alpha=_PALE)
        if attempt.warned_at and (attempt.is_interrupted or attempt.is_live):
            stripes: dict[str, Any] = {"facecolor": colour, "edgecolor": _PAPER, "hatch": "////"}
            self._bar(place, max(self._x(attempt.warned_at), start), gone, linewidth=0, **stripes)
        self._end(place, attempt, start, gone)
        self._work(place, attempt.work, start, stop)

    def _end(self, place: int, attempt: Attempt, start: float, stop: float) -> None:
        """What ended it: at its end, but not left of its beginning, where the next gap stands."""
        words, colour, marker = self._end_of(attempt)
        if marker:
            self._axes.plot(
                stop, place, marker, color=colour, markersize=9, markeredgewidth=2.4, zorder=5,
                markeredgecolor=colour, clip_on=False,
            )  # fmt: skip
        at = max(start, stop - self._width(words))
        self._text(at, place - _TOP, words, colour, va="bottom", lines=2)

    def _end_of(self, attempt: Attempt) -> tuple[str, str, str]:
        """What ended it, in words, their colour, and the marker at the end of its bar."""
        story = self._story
        if attempt.is_live:
            return ("Spot warning, still running" if attempt.warned_at else "running"), _GREY, ">"
        if attempt.is_interrupted:
            return _interruption(attempt), _RED, "x"
        is_last = attempt is story.attempts[-1]
        if is_last and story.state:
            is_good = story.state == "Completed"
            return story.state, _GREEN if is_good else _INK, "o" if is_good else ""
        return attempt.ended_by or attempt.cause, _INK, ""

    def _work(self, place: int, work: Sequence[Work], start: float, stop: float) -> None:
        """The task runs, in a strip below the bar; within it, though Prefect's clock may differ."""
        self._within(start, place + 0.29, work_in_words(work), _GREY)
        strips: dict[tuple[str, bool], list[tuple[float, float]]] = {}
        for each in work:
            is_lost = each.fate in (Fate.LOST, Fate.FAILED)
            least = self._length * (_SHORTEST_LOST if is_lost else _SHORTEST)
            begin = min(max(self._x(each.began_at), start), stop)
            is_cut = each.fate in (Fate.LOST, Fate.RUNNING) and each.ended_at is None
            end = stop if is_cut else min(self._x(each.ended_at or each.began_at), stop)
            colour = _REPEATED if each.repeats and not is_lost else _WORK[each.fate]
            strips.setdefault((colour, is_lost), []).append((begin, max(end - begin, least)))
        for (colour, is_lost), spans in strips.items():
            where = (place + 0.21 - _STRIP / 2, _STRIP)
            self._axes.broken_barh(spans, where, facecolors=colour, zorder=3 + is_lost)

    def _gap(self, place: int, place_before: int, before: Attempt, after: Attempt) -> None:
        """The wait until the flow ran again: dotted, before the bar; in words left of that."""
        begin, end = before.exited_at, after.began_at or after.started_at or after.running_at
        if begin is None or end is None or before.again_seconds is None:
            return
        start, stop = self._x(begin), self._x(end)
        look: dict[str, Any] = {"color": _GREY, "lw": 1, "ls": ":", "zorder": 1}
        self._axes.plot([start, start], [place_before + _BAR / 2, place], **look)
        self._axes.plot([start, max(start, stop)], [place, place], **look)
        at, left = start - 0.008 * self._length, _LEFT * self._length
        again = f"running again after {lasted(before.again_seconds)}"
        while at - self._width(again) < left and not again.startswith("after"):
            again = again.partition(" ")[2]
        self._text(at, place - _TOP, again, _GREY, ha="right", va="bottom")

    def _failed(self, place: int, failed: FailedToStart) -> None:
        at = self._x(failed.at) if failed.at else 0.0
        self._axes.plot(at, place, "X", color=_RED, markersize=8, clip_on=False)
        words = f"failed start {failed.number}: {failed.reason or failed.kind}"
        self._within(at, place - _TOP, words, _RED, va="bottom")
        self._within(at, place + _TOP, failed.decided.what, _GREY)

    def _labels(self, rows: Sequence[Row]) -> None:
        """Task, capacity and zone on the left; cost on the right."""
        names, costs = [], []
        for row in rows:
            zone = row.availability_zone if isinstance(row, Attempt) else ""
            number = f"{row.number}  " if isinstance(row, Attempt) else ""
            names.append(
                _plain(f"{number}{_short(row.capacity)}") + f"\n{_plain(zone)}" * bool(zone)
            )
            costs.append(_cost(row))
        self._axes.set_yticks(range(len(rows)), names, fontsize=10, color=_INK, parse_math=False)
        self._axes.tick_params(axis="y", length=0)
        right = self._axes.secondary_yaxis("right")
        right.set_yticks(range(len(rows)), costs, fontsize=9.5, color=_INK)
        right.tick_params(axis="y", length=0)
        right.spines["right"].set_visible(False)
        for side in ("left", "right", "top"):
            self._axes.spines[side].set_visible(False)
        self._axes.spines["bottom"].set_color(_GRID)

    def _ticks(self) -> None:
        wanted = self._length / 7
        step = _TICKS[min(bisect_left(_TICKS, wanted), len(_TICKS) - 1)]
        step *= max(1, round(wanted / step))
        ticks = [float(step * n) for n in range(int(self._length // step) + 1)]
        labels = [_clock(tick, self._length) for tick in ticks]
        self._axes.set_xticks(ticks, labels, fontsize=9, color=_GREY)
        self._axes.tick_params(axis="x", color=_GRID)
        self._axes.grid(axis="x", color=_GRID, linewidth=0.6)
        self._axes.set_axisbelow(True)
        if self._zero:
            unit = "minutes:seconds" if self._length < _HOUR else "hours:minutes"
            since = f"{unit} since {self._zero:%d %b %Y %H:%M:%S} UTC"
            self._axes.set_xlabel(since, fontsize=9, color=_GREY, loc="left")

    def _bar(self, y: float, start: float, stop: float, least: float = 0.0, **look: Any) -> None:
        width = max(stop - start, least * self._length)
        if width > 0:
            self._axes.barh(y, width, _BAR, left=start, zorder=3, **look)

    def _within(self, x: float, y: float, text: str, colour: str, va: str = "top") -> None:
        """Write from `x` on, or from further left where it would not fit."""
        fits_from = _RIGHT * self._length - self._width(text)
        self._text(max(0.0, min(x, fits_from)), y, text, colour, va=va)

    def _text(
        self, x: float, y: float, text: str, colour: str, ha: str = "left", va: str = "center",
        lines: int = 1,
    ) -> None:  # fmt: skip
        """Write in so many lines at most, up to the right edge, on paper: no line crosses it."""
        room = int((_RIGHT - (x / self._length) * (ha == "left")) / _CHARACTER)
        shown = "\n".join(wrap(_plain(text), max(room, 9), max_lines=lines, placeholder=" …"))
        paper = {"facecolor": _PAPER, "edgecolor": "none", "pad": 0.6}
        self._axes.text(
            x, y, shown, color=colour, ha=ha, va=va, fontsize=9, zorder=6, linespacing=1.05,
            parse_math=False, clip_on=False, bbox=paper,
        )  # fmt: skip

    def _width(self, text: str) -> float:
        return len(_plain(text)) * _CHARACTER * self._length

    def _x(self, at: datetime) -> float:
        return 0.0 if self._zero is None else (at - self._zero).total_seconds()


def _head(story: Story, left_out: int) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """The lines above the timeline, with what fits: which run, what became of it, the money."""
    of = f" · {story.deployment}" if story.deployment else ""
    name = f"Flow run {story.name or story.flow_run_id}{of}"
    yield name, 100, {"fontsize": 13, "fontweight": "bold", "color": _INK}
    took = f" · {lasted(story.seconds)}" if story.began_at else ""
    more = f" · {left_out} rows left out" * bool(left_out)
    yield f"{story.headline}{took}{more}", 125, {"fontsize": 10.5, "color": _INK}
    also = list(waiting_in_words(story))
    if names := ", ".join(child.name for child in story.children):
        also.append(f"not drawn, nor in the sum: child run {names}")
    if also:
        yield " · ".join(also), 140, {"fontsize": 9.5, "color": _GREY}
    if story.attempts:
        yield money_in_words(story), 140, {"fontsize": 9.5, "color": _GREY}


def _interruption(attempt: Attempt) -> str:
    """Which interruption it was, of how many, what then, and why: without what set the budget."""
    number, decided = str(attempt.interruption or ""), attempt.decided
    what = f"{attempt.cause} {number}".strip()
    if decided is None:
        return what
    why, then = decided.why.partition(" (")[0], decided.what.removeprefix("rerun on ")
    if why.startswith(f"{number} of "):
        return f"{attempt.cause} {why.partition(' interruptions')[0]} → {then}"
    return f"{what} → {then}{f': {why}' * bool(why)}"


def _legend(figure: Figure) -> None:
    mark: dict[str, Any] = {"ls": "", "markeredgewidth": 2.4}
    handles = [
        Patch(color=_SPOT, label="on Spot"),
        Patch(color=_ON_DEMAND, label="on demand"),
        Patch(facecolor=_UNKNOWN, alpha=_PALE, label="ECS starts or stops the task"),
        Patch(facecolor=_UNKNOWN, edgecolor=_PAPER, hatch="////", label="warned"),
        Line2D([], [], color=_RED, marker="x", label="interrupted", **mark),
        Line2D([], [], color=_GREEN, marker="o", label="completed", **mark),
        Patch(color=_WORK[Fate.KEPT], label="task run done"),
        Patch(color=_WORK[Fate.SKIPPED], label="skipped"),
        Patch(color=_RED, label="lost"),
        Patch(color=_REPEATED, label="repeated"),
    ]
    look = {"frameon": False, "fontsize": 8.5, "labelcolor": _GREY, "handlelength": 1.2}
    spaced = {"columnspacing": 0.9, "handletextpad": 0.5, "ncols": len(handles)}
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 0), **look, **spaced)


def _cost(row: Row) -> str:
    if isinstance(row, FailedToStart):
        return f"{in_usd(row.money.cost_usd)} USD" if row.money else ""
    usd = usd_of(row)
    if row.money is None or not usd:
        return usd
    wasted = row.money.wasted_usd
    return f"{usd} USD" + (f"\n{in_usd(wasted)} wasted" if wasted else "")


def _short(capacity: str) -> str:
    return {FARGATE_SPOT: "Spot", FARGATE: "on demand"}.get(capacity, capacity or "unknown")


def _clock(seconds: float, length: float) -> str:
    large, small = divmod(int(seconds if length < _HOUR else seconds / 60), 60)
    return f"{large}:{small:02}"


def _plain(text: str, length: int = LONGEST_TEXT) -> str:
    """Cleaned and cut, a box for what the font lacks. The caller switches formulas off."""
    shown = drawable(text[: 4 * length])
    return shown if len(shown) <= length else f"{shown[: length - 1]}…"
