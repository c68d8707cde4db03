"""How the clouds of the long tests are built: each is up once, and all its tests run in it."""

from dataclasses import replace
from typing import Final

from localcloud.cloud import Options, new_auth_string
from localcloud.fargate import Timings

AUTH_STRING: Final = new_auth_string()
GRACE_SECONDS: Final = 20

ORDINARY: Final = Options(
    auth_string=AUTH_STRING,
    settings={"SWEEP_GRACE_SECONDS": str(GRACE_SECONDS)},
    timings=Timings(stop_timeout_scale=0.1),  # of 120 s: time for an engine to report Crashed
    worker_query_seconds=1,
    lambda_timeout_seconds=30,  # as shipped: `react` gathers facts only while 15 s are left
    postgres=True,  # so many runs at once, and SQLite itself answers 503
    proxy=True,
)
SIMULATED: Final = Options(
    auth_string=AUTH_STRING,
    settings={"SWEEP_GRACE_SECONDS": "5"},
    lambda_timeout_seconds=15,
    retry_scale=0.35,  # 21 and 42 s: a lease lives for the 15 s and 5 more
    faults=True,
    postgres=True,  # a 503 of SQLite's own would be a fault that is not ours
    worker=False,
    lambda_concurrency=10,
)
CLOUDS: Final = {
    "ordinary": ORDINARY,
    "simulated": SIMULATED,
    "observed": replace(ORDINARY, observer=True, proxy=False),
    "shipped": Options(auth_string=AUTH_STRING, as_shipped=True),
}
"""The one with the longest tests first. In `simulated`, worker and engines are."""
