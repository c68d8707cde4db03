"""Deploys the flows of `flows.py`; run as a program, as a user would. Prints JSON: name → id."""

import json
import sys
from pathlib import Path
from typing import Any

from prefect_aws import AwsCredentials, S3Bucket

from tests.e2e.flows import RESULTS, fails, idles, parent, steps, waits


def main(pool: str, bucket: str) -> None:
    S3Bucket(bucket_name=bucket, credentials=AwsCredentials()).save(
        RESULTS.removeprefix("s3-bucket/"), overwrite=True
    )
    ids = {}
    for flow in (steps, waits, idles, fails, parent):
        name = flow.name
        remote: Any = flow.from_source(
            source=str(Path(__file__).parent), entrypoint=f"flows.py:{name}"
        )
        ids[name] = str(remote.deploy(name="e2e", work_pool_name=pool, print_next_steps=False))
    print("\n" + json.dumps(ids))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
