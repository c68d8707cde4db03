"""An example flow that stands an interruption: what it has done is not done again.

Each day's result is persisted in S3 under Prefect's default cache policy, whose key holds the run's
id. A rerun is the same run, so it skips the days that are done, whatever container it is in.
"""

import time

from prefect import flow, get_run_logger, task

RESULTS = "s3-bucket/prefect-spot-results"


@task(persist_result=True)
def load_day(day: int, seconds: float) -> int:
    """Stand in for work that takes its time; returns the day's sales."""
    time.sleep(seconds)
    return 100 + day


@flow(persist_result=True, result_storage=RESULTS, log_prints=True)
def nightly_sales(days: int = 6, seconds_per_day: float = 3) -> int:
    """Load the days one after the other and return the sum of their sales."""
    logger = get_run_logger()
    total = 0
    for day in range(days):
        total += load_day(day, seconds_per_day)
        logger.info("day %d of %d is loaded", day + 1, days)
    return total
