"""Very many interruptions at once, for the deployed zip alone."""

from collections.abc import Mapping
from typing import Any, Final

from lab.bench.comparison import OURS, Comparison, stop_alone
from lab.bench.part import Log, Measured, ratio
from lab.bench.servers import deployed, stand_in
from localcloud.processes import Supervisor

TITLE: Final = "What if very many runs are interrupted at once?"
STORMS: Final = "Storms"
SIZES: Final = (100, 1_000, 10_000)
NOTES: Final = {
    STORMS: (
        "As above: the last event of each, all of them there at the beginning, for the deployed"
        " zip and the stand-in 20 ms away. One in four moves to FARGATE."
    )
}


def answer(found: Mapping[str, Any]) -> str:
    """Return the sentence for the page."""
    most, seconds = list(found["storm"].items())[-1]
    grown = f", {found['storm_growth']} times as long as a tenth" if "storm_growth" in found else ""
    return f"Ten runtimes handle {int(most):,} interruptions in {seconds:.0f} s{grown}."


def measure(log: Log, *, short: bool = False) -> Measured:
    """Measure each storm on fresh servers; targets: seconds by size, and how they grow."""
    rows = []
    with Supervisor.open() as supervisor, deployed(supervisor) as stage:
        comparison = Comparison(stage, log)
        for size in SIZES[:1] if short else SIZES:
            with stand_in(supervisor) as prefect:
                sample = comparison.sample(OURS, prefect, size, stop_alone)
            rows.append({"interruptions at once": size, **sample})
            log(f"{size} interruptions: {sample['seconds']:.2f} s")
    seconds = {str(row["interruptions at once"]): row["seconds"] for row in rows}
    targets: dict[str, object] = {"storm": seconds}
    if not short:
        targets["storm_growth"] = ratio(rows[-1]["seconds"], rows[-2]["seconds"])
    return Measured(targets, {STORMS: rows})
