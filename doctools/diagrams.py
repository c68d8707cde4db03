"""Draws the diagrams: `docs/diagrams/*.txt` become SVG files beside them.

    python -m doctools.diagrams

Two kinds, named by a file's first word. `boxes`: `box ID COLUMN ROW TITLE | LINE | …` on a grid,
`arrow ID ID LABEL | …` between them, horizontal, vertical, or with one bend. `sequence`: `actor ID
TITLE`, then from top to bottom `ID ID LABEL` for a message, `note ID TEXT` and `rule TEXT`. A `#`
begins a comment. A card of its own colour keeps a drawing readable on dark and light pages.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "diagrams"

LINE: Final = 16
SMALL: Final = 12
LETTER: Final = 6.6
"""Pixels: line height, font size, and what a letter of it takes, generously."""

STYLE: Final = f"""
  text {{ font: {SMALL}px system-ui, sans-serif; fill: #1f2933; text-anchor: middle; }}
  .title {{ font-weight: 600; font-size: 13px; }}
  .label {{ fill: #3e4c59; font-size: 11px; }}
  .card {{ fill: #fbfcfe; stroke: #d5dbe3; }}
  .box {{ fill: #e6edfb; stroke: #4a6fd0; }}
  .note {{ fill: #fff4d6; stroke: #d8a52a; }}
  .line {{ fill: none; stroke: #52606d; stroke-width: 1.4; marker-end: url(#head); }}
  .thin {{ stroke: #b7c0cc; stroke-dasharray: 3 4; }}
"""
HEAD: Final = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
    ' orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#52606d"/></marker></defs>'
)


@dataclass
class Drawing:
    """SVG in the making; `width` and `height` grow with what is put on it."""

    parts: list[str] = field(default_factory=list)
    width: float = 0
    height: float = 0

    def text(self, x: float, y: float, lines: Sequence[str], css: str = "label") -> None:
        """Put lines around `y`, each centred on `x`."""
        top = y - (len(lines) - 1) * LINE / 2 + 4
        for number, line in enumerate(lines):
            shown = css if css != "box-text" else ("title" if number == 0 else "label")
            place = f'x="{x:g}" y="{top + number * LINE:g}"'
            self.parts.append(f'<text class="{shown}" {place}>{escape(line)}</text>')
            self._reach(x + width_of([line]) / 2, top + number * LINE)

    def rect(self, x: float, y: float, width: float, height: float, css: str) -> None:
        """Put a rounded rectangle with its centre at `x`, `y`."""
        place = f'x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}"'
        self.parts.append(f'<rect class="{css}" {place} height="{height:g}" rx="7"/>')
        self._reach(x + width / 2, y + height / 2)

    def path(self, points: Sequence[tuple[float, float]], css: str = "line") -> None:
        """Put a line through the points."""
        way = " L".join(f"{x:g} {y:g}" for x, y in points)
        self.parts.append(f'<path class="{css}" d="M{way}"/>')

    def svg(self, title: str) -> str:
        """Return the whole picture; `title` is for those who cannot see it."""
        width, height = self.width + 20, self.height + 20
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"'
                f' width="{width:g}" height="{height:g}" role="img">',
                f"<title>{escape(title)}</title><style>{STYLE}</style>{HEAD}",
                f'<rect class="card" x="1" y="1" width="{width - 2:g}" height="{height - 2:g}"'
                ' rx="10"/>',
                *self.parts,
                "</svg>\n",
            ]
        )

    def _reach(self, x: float, y: float) -> None:
        self.width, self.height = max(self.width, x), max(self.height, y)


@dataclass(frozen=True)
class Box:
    """A box on the grid; `x`, `y` are its centre's."""

    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]


def width_of(lines: Iterable[str]) -> float:
    """Return how wide the longest line is, in pixels."""
    return max(len(line) for line in lines) * LETTER


def draw_boxes(lines: Sequence[str], title: str) -> str:
    """Draw boxes and the arrows between them. Raises ValueError for a line of another kind."""
    column, row = 212, 112
    boxes: dict[str, Box] = {}
    drawing = Drawing()
    for line in lines:
        match line.split(maxsplit=4):
            case ["box", name, x, y, text]:
                said = _split(text)
                size = (max(128, width_of(said) + 22), len(said) * LINE + 18)
                boxes[name] = Box(106 + float(x) * column, 50 + float(y) * row, *size, said)
    for line in lines:
        match line.split(maxsplit=3):
            case ["box", *_]:
                pass
            case ["arrow", source, target]:
                _arrow(drawing, boxes[source], boxes[target], ())
            case ["arrow", source, target, text]:
                _arrow(drawing, boxes[source], boxes[target], _split(text))
            case _:
                raise ValueError(f"neither box nor arrow: {line}: a line begins with one of them")
    for box in boxes.values():
        drawing.rect(box.x, box.y, box.width, box.height, "box")
        drawing.text(box.x, box.y, box.lines, "box-text")
    return drawing.svg(title)


def _arrow(drawing: Drawing, source: Box, target: Box, label: tuple[str, ...]) -> None:
    right = 1 if target.x > source.x else -1
    down = 1 if target.y > source.y else -1
    if source.y == target.y:
        begin = source.x + right * source.width / 2
        end = target.x - right * target.width / 2
        drawing.path([(begin, source.y), (end, target.y)])
        middle = ((begin + end) / 2, source.y - 6 - len(label) * LINE / 2)
    elif source.x == target.x:
        begin = source.y + down * source.height / 2
        end = target.y - down * target.height / 2
        drawing.path([(source.x, begin), (target.x, end)])
        middle = (source.x + width_of(label or ("",)) / 2 + 8, (begin + end) / 2)
    else:
        begin = source.x + right * source.width / 2
        end = target.y - down * target.height / 2
        drawing.path([(begin, source.y), (target.x, source.y), (target.x, end)])
        middle = ((begin + target.x) / 2, source.y - 6 - len(label) * LINE / 2)
    if label:
        drawing.text(*middle, label)


def draw_sequence(lines: Sequence[str], title: str) -> str:
    """Draw actors and what passes between them. Raises KeyError for an actor that is not named."""
    spacing, step = 158.0, 40.0
    actors: dict[str, float] = {}
    drawing = Drawing()
    y = 82.0
    for line in lines:
        first, second, *rest = line.split(maxsplit=2)
        text = _split(rest[0]) if rest else ()
        if first == "actor":
            actors[second] = x = 84 + len(actors) * spacing
            drawing.rect(x, 34, spacing - 18, 34, "box")
            drawing.text(x, 34, text, "title")
        elif first == "note":
            y += (len(text) - 1) * LINE / 2
            drawing.rect(actors[second], y, width_of(text) + 18, len(text) * LINE + 10, "note")
            drawing.text(actors[second], y, text)
            y += step + (len(text) - 1) * LINE / 2
        elif first == "rule":
            said = _split(line.split(maxsplit=1)[1])
            drawing.text((84 + max(actors.values())) / 2, y, said, "title")
            y += step
        else:
            begin, end = actors[first], actors[second]
            y += (len(text) - 1) * LINE
            drawing.text((begin + end) / 2, y - 12 - (len(text) - 1) * LINE / 2, text)
            drawing.path([(begin, y), (end, y)])
            y += step
    lifelines = Drawing(width=drawing.width, height=y - step / 2)
    for x in actors.values():
        lifelines.path([(x, 52), (x, lifelines.height)], "thin")
    lifelines.parts += drawing.parts
    lifelines.width = max(lifelines.width, max(actors.values()) + 84)
    return lifelines.svg(title)


KINDS: Final[dict[str, Callable[[Sequence[str], str], str]]] = {
    "boxes": draw_boxes,
    "sequence": draw_sequence,
}


def draw(source: str) -> str:
    """Return the SVG of a diagram's text; its first line is `KIND TITLE`."""
    lines = [line.strip() for line in source.splitlines()]
    first, *rest = [line for line in lines if line and not line.startswith("#")]
    kind, _, title = first.partition(" ")
    return KINDS[kind](rest, title)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("|"))


def main() -> int:
    """Draw all; returns the exit code."""
    for source in sorted(FOLDER.glob("*.txt")):
        source.with_suffix(".svg").write_text(draw(source.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
