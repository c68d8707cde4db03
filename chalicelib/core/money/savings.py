"""The report's totals as a table artifact, which `sweep` puts into Prefect once a day."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chalicelib.core.model.text import table_cell
from chalicelib.core.money.report import Report, Row, rounded


@dataclass(frozen=True, slots=True)
class TableArtifact:
    """A table for the Prefect UI, on no run; one more with the same key is its newest version."""

    key: str
    rows: Sequence[Mapping[str, object]]
    description: str


def savings_table(report: Report) -> Sequence[Mapping[str, object]]:
    """Return a row per deployment and the totals: plain numbers, and the name as Markdown (UI)."""
    return [_savings_row(row, report) for row in report.whole]


def _savings_row(row: Row, report: Report) -> Mapping[str, object]:
    columns = {
        "net USD": "net_savings_usd",
        "wasted USD": "wasted_usd",
        **({"assumed": "assumed_bills"} if report.total.counts.assumed_bills else {}),
        "interrupted": "interruptions",
        "rerun: Spot": "spot_reruns",
        "rerun: on demand": "on_demand_reruns",
        **report.optional,
        "runs": "runs",
        "tasks": "attempts",
        "hours": "hours",
        "paid USD": "cost_usd",
        "on demand, without repeats, USD": "useful_usd",
    }
    figures = row.counts.figures(columns.values())
    shown = {title: figures[name] for title, name in columns.items()}
    adds_up = rounded(row.counts.amounts)
    usd = {title: float(adds_up[name]) for title, name in columns.items() if name in adds_up}
    hours = float(f"{row.counts.hours:.2f}")
    pool = {"work pool": table_cell(row.work_pool)} if report.has_pools else {}
    plain = {"deployment": table_cell(row.deployment), **pool}
    return {**plain, **shown, **usd, "hours": hours}
