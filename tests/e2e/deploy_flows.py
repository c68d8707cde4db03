"""Deploys the flows of `flows.py`, and the example that saves its work. Prints JSON: name → id.

`python -m tests.e2e.deploy_flows POOL BUCKET`, as a user would. A flow's deployment goes by the
flow's name; those of `waits` that run one at a time by their collision strategy's: ENQUEUE and
CANCEL_NEW.
"""

import json
import sys
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect_aws import AwsCredentials, S3Bucket

from localcloud.deployment import PROJECT
from tests.e2e import flows

EXAMPLES = PROJECT / "examples"
FLOWS = (
    *(flows.steps, flows.waits, flows.fails, flows.parent, flows.idles),
    *(flows.pauses, flows.suspends, flows.calls),
)


def main(pool: str, bucket: str) -> None:
    S3Bucket(bucket_name=bucket, credentials=AwsCredentials()).save(
        flows.RESULTS.removeprefix("s3-bucket/"), overwrite=True
    )
    ids = {flow.name: deploy(flow.name, "e2e", work_pool_name=pool) for flow in FLOWS}
    example = EXAMPLES / "checkpointing.py"
    ids["train-model"] = deploy("train_model", "e2e", example, work_pool_name=pool)
    for strategy in ConcurrencyLimitStrategy:
        limit = ConcurrencyLimitConfig(limit=1, collision_strategy=strategy)
        ids[strategy.value] = deploy(
            "waits", strategy.value, work_pool_name=pool, concurrency_limit=limit
        )
    print("\n" + json.dumps(ids))  # noqa: T201  # a program: its output


def deploy(flow: str, name: str, file: Path = Path(flows.__file__), **how: Any) -> str:
    remote: Any = flows.waits.from_source(source=str(file.parent), entrypoint=f"{file.name}:{flow}")
    return str(remote.deploy(name=name, print_next_steps=False, **how))


if __name__ == "__main__":
    main(*sys.argv[1:])
