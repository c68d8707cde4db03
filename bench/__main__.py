"""`make bench`, or `python -m bench observer floor cold storm sweep`: measure, print, write.

`--short` tries the parts with smallest sizes, and writes no page; `--page` measures nothing and
writes the page anew from what is on record.
"""

import argparse
import sys
import time
from datetime import UTC, datetime

from rich.console import Console

from bench import machine, page, results
from bench.part import PARTS, Figures, load_part
from bench.show import show, table_of


def main(arguments: list[str]) -> int:
    """Run the parts that are named, all when none is. Returns 0 also for a promise not kept."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--short", action="store_true", help="smallest sizes, once, and no page")
    parser.add_argument("--page", action="store_true", help="only write the page, from the record")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]}: there are {', '.join(PARTS)}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    file = results.SHORT_FILE if options.short else results.FILE
    found = results.load(file)
    if not options.page:
        for name in options.parts or PARTS:
            found = _run(name, found, console, short=options.short)
            results.save(found, file)
        console.print(f"written: {file.relative_to(machine.ROOT)}")
    show(console, table_of(results.judge(found)))
    if not options.short:
        page.write(found)
        console.print(f"written: {page.PAGE.relative_to(machine.ROOT)}")
    return 0


def _run(name: str, found: Figures, console: Console, *, short: bool) -> Figures:
    part = load_part(name)
    began, at = time.monotonic(), datetime.now(UTC)

    def log(line: str) -> None:
        console.print(f"{time.monotonic() - began:7.1f} s  {name}: {line}", highlight=False)

    console.rule(part.TITLE)
    figures = part.measure(log, short=short)
    for table in part.tables(figures):
        show(console, table)
    measured = {
        "at": f"{at:%Y-%m-%d %H:%M} UTC",
        "seconds": round(time.monotonic() - began, 1),
        "machine": dict(machine.describe()),
        "figures": figures,
    }
    return results.merge(found, name, part.targets(figures), measured)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
