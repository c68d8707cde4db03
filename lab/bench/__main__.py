"""`make bench`, or `python -m lab.bench observer floor cold storm sweep`: measure, print, write.

`--short` tries the parts with smallest sizes, and writes no page. `cold --against DIR` compares the
Lambda of this checkout with that of another one, start by start, and writes nothing.
"""

import argparse
import sys
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from rich.console import Console

from lab.bench import report
from lab.bench.part import PARTS, ROOT, describe_machine
from lab.tables import console, show


def main(arguments: list[str]) -> int:
    """Run the parts that are named, all when none is. Returns 0 also for a promise not kept."""
    parser = argparse.ArgumentParser(prog="python -m lab.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--short", action="store_true", help="smallest sizes, once, and no page")
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout, for cold")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]}: there are {', '.join(PARTS)}")
    screen = console()
    if options.against:
        if options.parts != ["cold"]:
            parser.error("--against is for cold alone: python -m lab.bench cold --against DIR")
        _run("cold", {}, screen, short=options.short, against=options.against)
        return 0
    file = report.SHORT_FILE if options.short else report.FILE
    found = report.load(file)
    for name in options.parts or PARTS:
        found = _run(name, found, screen, short=options.short)
        report.save(found, file)
    show(screen, "What is promised, and what was found", report.judged(found))
    screen.print(f"written: {file.relative_to(ROOT)}")
    if not options.short:
        report.write_page(found)
        screen.print(f"written: {report.PAGE.relative_to(ROOT)}")
    return 0


def _run(name: str, found: report.Found, screen: Console, **options: object) -> report.Found:
    part = import_module(f"lab.bench.{name}")
    began, at = time.monotonic(), datetime.now(UTC)

    def log(line: str) -> None:
        screen.print(f"{time.monotonic() - began:7.1f} s  {name}: {line}")

    screen.rule(part.TITLE)
    measured = part.measure(log, **options)
    for title, rows in measured.tables.items():
        show(screen, title, rows)
    share = {
        "at": f"{at:%Y-%m-%d %H:%M} UTC",
        "seconds": round(time.monotonic() - began, 1),
        "machine": describe_machine(),
        "figures": measured.tables,
    }
    return report.merge(found, name, measured.targets, share)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
