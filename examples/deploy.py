"""Deploys the example flow to a work pool of prefect-spot.

    python examples/deploy.py --pool fargate-spot-dev --bucket BUCKET --path /opt/flows

`--path` is where the flow's file is in the image (`examples/Dockerfile`); Prefect's settings come
from the environment or the profile, as for `prefect deploy`.
"""

import argparse
import json
from typing import Any

from nightly_sales import RESULTS, nightly_sales
from prefect_aws import AwsCredentials, S3Bucket


def main() -> None:
    """Save the S3 block for results, then the deployment; prints its id."""
    arguments = _arguments()
    S3Bucket(bucket_name=arguments.bucket, credentials=AwsCredentials()).save(
        RESULTS.removeprefix("s3-bucket/"), overwrite=True
    )
    entrypoint = "nightly_sales.py:nightly_sales"
    flow: Any = nightly_sales.from_source(source=arguments.path, entrypoint=entrypoint)
    deployment_id = flow.deploy(
        name="spot",
        work_pool_name=arguments.pool,
        work_queue_name="default",
        tags=["spot-retries:2"],
        job_variables={"cpu": 512, "memory": 1024, **arguments.job_variables},
        print_next_steps=False,
    )
    print(deployment_id)  # noqa: T201  # a program: its output


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", required=True, help="work pool to deploy to")
    parser.add_argument("--bucket", required=True, help="S3 bucket for results")
    parser.add_argument("--path", default="/opt/flows", help="the flow's folder in the image")
    parser.add_argument(
        "--job-variables", type=json.loads, default={}, help="more job variables, as JSON"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
