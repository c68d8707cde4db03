"""An example flow that stands interruptions: what it has done is not done again.

A rerun is the same flow run, so all that is keyed by the run's id finds what was left for it:

1. tasks: their results are persisted in S3. Prefect's default cache key is made of the run's id,
   the task's source and its arguments, so a rerun reads what is there, whatever container it is in;
2. a subflow in the same process: Prefect takes its run up again, and with it its tasks' results;
3. a child in a container of its own: `run_deployment` with an idempotency key made of our run's id
   finds the child of the last attempt. Without the key, each rerun starts one more. And since
   `run_deployment` returns at the child's *first* final state, which is Crashed where Spot has no
   room for it, the call stands in a task that is retried while the child is Crashed: a retry finds
   the same child, rescued meanwhile. Without that, our run fails of a child that completes later.

Results are JSON: Prefect's default is pickle, which runs code when it is read. A task's result is
written as its flow's.
"""

import time
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.deployments import run_deployment
from prefect.exceptions import CrashedRun
from prefect.runtime import flow_run

RESULTS = "s3-bucket/prefect-spot-results"
CURRENCIES = {"east": "JPY", "north": "SEK", "west": "GBP"}


@task(persist_result=True)
def load_day(day: int, seconds: float) -> dict[str, int]:
    """Stand in for work that takes its time; returns the day's sales by region."""
    time.sleep(seconds)
    return dict.fromkeys(CURRENCIES, 100 * (day + 1))


@task(persist_result=True)
def fetch_rate(currency: str, seconds: float) -> float:
    """Stand in for a slow service; returns what one unit of the currency is worth in USD."""
    time.sleep(seconds)
    return {"JPY": 0.0065, "SEK": 0.1, "GBP": 1.3}[currency]


@task(persist_result=True)
def convert(region: str, amount: int, rate: float, seconds: float) -> float:
    """Return a region's sales in USD."""
    time.sleep(seconds)
    get_run_logger().info("%s sold for %.2f USD", region, amount * rate)
    return amount * rate


@flow(persist_result=True, result_storage=RESULTS, result_serializer="json")
def exchange_rates(seconds: float = 2) -> dict[str, float]:
    """Return today's rates: a deployment of its own, which others may call as well."""
    return {currency: fetch_rate(currency, seconds) for currency in CURRENCIES.values()}


def is_crashed(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a task failed because its child run Crashed: that may be rescued, a failure not."""
    return isinstance(state.result(raise_on_failure=False), CrashedRun)


@task(persist_result=True, retries=5, retry_delay_seconds=120, retry_condition_fn=is_crashed)
def ask_for_rates(key: str, seconds: float) -> dict[str, float]:
    """Return what the child run of that key returns; start it unless it is there.

    A refusal is rescued within 90 seconds: 120 between two tries. A start of the child can Crash
    three times for a passing reason, and once more for want of room: five retries leave one over.
    """
    child: Any = run_deployment(
        "exchange-rates/spot",
        parameters={"seconds": seconds},
        idempotency_key=key,
        poll_interval=1,
    )
    rates: dict[str, float] = child.state.result()  # raises what the child failed of
    return rates


@flow(persist_result=True, result_storage=RESULTS, result_serializer="json")
def in_dollars(sales: dict[str, int], rates: dict[str, float], seconds: float) -> float:
    """Return the sum of the regions' sales in USD."""
    return sum(
        convert(region, amount, rates[CURRENCIES[region]], seconds)
        for region, amount in sales.items()
    )


@flow(persist_result=True, result_storage=RESULTS, result_serializer="json")
def nightly_sales(days: int = 4, seconds: float = 2) -> float:
    """Load the days, ask for the rates, and return the sales in USD. `seconds`: of each task."""
    logger = get_run_logger()
    sales = dict.fromkeys(CURRENCIES, 0)
    for day in range(days):
        for region, amount in load_day(day, seconds).items():
            sales[region] += amount
        logger.info("day %d of %d is loaded", day + 1, days)
    rates = ask_for_rates(f"{flow_run.id}-exchange-rates", seconds)
    total = in_dollars(sales, rates, seconds)
    logger.info("all regions together sold for %.2f USD", total)
    return total
