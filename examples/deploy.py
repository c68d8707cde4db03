"""Deploys the example flows, and the child flow that one calls, to a work pool of prefect-spot.

    python examples/deploy.py --pool fargate-spot-dev --bucket BUCKET --image IMAGE

IMAGE is what `examples/build_and_push.sh` prints. Prefect's settings come from the environment or
the profile, as for `prefect deploy`. What is not given here is as the work pool has it.
"""

import argparse
from typing import Any

from checkpointing import train_model
from nightly_sales import RESULTS, exchange_rates, nightly_sales
from prefect_aws import AwsCredentials, S3Bucket


def main() -> None:
    """Save the S3 block for results, then the deployments; prints the id of `nightly-sales`."""
    arguments = _arguments()
    # No key in the block: in the container, the task role's rights hold.
    S3Bucket(
        bucket_name=arguments.bucket,
        bucket_folder=arguments.folder,
        credentials=AwsCredentials(),
    ).save(RESULTS.removeprefix("s3-bucket/"), overwrite=True)
    for flow in (train_model, exchange_rates, nightly_sales):
        entrypoint = f"{flow.fn.__module__}.py:{flow.fn.__name__}"
        remote: Any = flow.from_source(source=arguments.path, entrypoint=entrypoint)
        deployment_id = remote.deploy(
            name="spot",
            work_pool_name=arguments.pool,
            work_queue_name=arguments.queue,
            tags=arguments.tags,
            job_variables=_job_variables(arguments),
            print_next_steps=False,
        )
    print(deployment_id)  # noqa: T201  # a program: its output


def _job_variables(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what each run's ECS task is to be like; a run may still change it."""
    wanted = {
        "image": arguments.image,
        "cpu": arguments.cpu,
        "memory": arguments.memory,
        "task_role_arn": arguments.task_role_arn,
        "execution_role_arn": arguments.execution_role_arn,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", required=True, help="work pool to deploy to")
    parser.add_argument("--queue", default="default", help="work queue in the pool")
    parser.add_argument("--bucket", required=True, help="S3 bucket for results")
    parser.add_argument(
        "--folder",
        default="",
        help="folder in the bucket: deployments/NAME with the role of deployment_role.json",
    )
    parser.add_argument("--path", default="/opt/flows", help="the flows' folder in the image")
    tags = "of each deployment, and so of its runs: here, how often they are rerun on Spot"
    parser.add_argument("--tags", nargs="*", default=["spot-retries:2"], help=tags)
    parser.add_argument("--image", help="image that holds the flows")
    parser.add_argument("--cpu", type=int, help="of a run's task, in CPU units")
    parser.add_argument("--memory", type=int, help="of a run's task, in MiB")
    parser.add_argument("--task-role-arn", help="what the flows may do: S3 on the bucket, at least")
    parser.add_argument("--execution-role-arn", help="pulls the image and reads the API key")
    return parser.parse_args()


if __name__ == "__main__":
    main()
