"""The savings in Prefect's UI: a table artifact, once a day, beside the runs they come from."""

from datetime import timedelta
from typing import Final

from chalicelib.core.context import Context
from chalicelib.core.money.report import days_between, in_usd, report_of, savings_table
from chalicelib.core.ports import TableArtifact

SAVINGS_KEY: Final = "spot-savings"
DAYS: Final = 30


def publish_savings(context: Context) -> bool:
    """Put the last 30 days' savings into Prefect, unless that was done today; say whether it was.

    A sweep that dies between the two writes lets the next one write the table again.
    """
    today = context.now().date()
    if context.bills.read_reported() == today.isoformat():
        return False
    days = days_between(today - timedelta(days=DAYS - 1), today)
    report = report_of(context.bills.read_sums(days), days[0], days[-1])
    description = (
        f"What Fargate Spot saved from {days[0]} to {days[-1]} (UTC), estimated;"
        f" net of what had to be run again: {in_usd(report.total.counts.net_savings_usd)} USD."
    )
    told = " ".join([description, *(f"Note: {warning}." for warning in report.warnings)])
    context.prefect.write_table(TableArtifact(SAVINGS_KEY, savings_table(report), told))
    context.bills.save_reported(today.isoformat())
    return True
