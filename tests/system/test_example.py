"""The example flow, deployed as its user would: interrupted everywhere, nothing of it done twice.

Counted in S3, with versions kept: whatever is persisted is written once, by whichever attempt, and
a task that ran again would write its result again, under the same key or under another.
"""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from localcloud.bootstrap import CLUSTER, STACK, WORK_POOL
from localcloud.cloud import Cloud, wait_for
from localcloud.deployment import PROJECT
from localcloud.prefect_api import deployment_id_in
from tests.e2e.scenario import ATTEMPT_SECONDS, Run, Stage
from tests.e2e.stories import story

EXAMPLES = PROJECT / "examples"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/flows:1"
TASK_ROLE = f"arn:aws:iam::123456789012:role/prefect-spot/{STACK}/{STACK}-flow-nightly-sales"
FOLDER = "deployments/nightly-sales"
EXECUTION_ROLE = "arn:aws:iam::123456789012:role/flows-execution"
TASKS = {"load_day": 4, "ask_for_rates": 1, "fetch_rate": 3, "convert": 3}
FLOWS = 3
"""The flow, its subflow and its child: each persists what it returns."""


@dataclass(frozen=True)
class Example:
    """A run of the example flow, and what S3 held before it."""

    cloud: Cloud
    run: Run
    bucket: str
    written_before: frozenset[str]

    def results(self) -> Counter[str]:
        """How often each object of this run was written."""
        pages = self.cloud.aws.client("s3").get_paginator("list_object_versions")
        versions = [v for page in pages.paginate(Bucket=self.bucket) for v in page["Versions"]]
        return Counter(v["Key"] for v in versions if v["Key"] not in self.written_before)

    def result(self, key: str) -> Any:
        """A task's is kept with what it is to be read with, a flow's alone; JSON, or it raises."""
        return json.load(
            self.cloud.aws.client("s3").get_object(Bucket=self.bucket, Key=key)["Body"]
        )

    def children(self) -> list[dict[str, Any]]:
        """The child runs of the run: that of a deployment first, then the subflow's."""
        children = self.cloud.prefect.children(self.run.id)
        return sorted(children, key=lambda child: child["deployment_id"] is None)

    def completed(self, task: str) -> int:
        """Task runs that did the work; those that found it done are Cached."""
        runs = [self.run.id, *(child["id"] for child in self.children())]
        of_all = [task_run for run in runs for task_run in self.cloud.prefect.task_runs(run)]
        done = [t for t in of_all if t["state_name"] == "Completed"]
        return sum(t["name"].startswith(f"{task}-") for t in done)


def deployed(stage: Stage) -> Example:
    cloud, bucket = stage.cloud, stage.cloud.outputs["ResultsBucket"]
    s3 = cloud.aws.client("s3")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    before = frozenset(o["Key"] for o in s3.list_objects_v2(Bucket=bucket).get("Contents", []))
    output = cloud.run_python(
        str(EXAMPLES / "deploy.py"), "--pool", WORK_POOL, "--queue", "nightly",
        "--bucket", bucket, "--folder", FOLDER, "--path", str(EXAMPLES), "--image", IMAGE,
        "--cpu", "1024", "--memory", "2048",
        "--task-role-arn", TASK_ROLE, "--execution-role-arn", EXECUTION_ROLE,
    )  # fmt: skip
    run_id = cloud.prefect.start(deployment_id_in(output))
    return Example(cloud, Run(cloud, run_id, stage.folder / "none"), bucket, before)


@story
def interrupted_everywhere(stage: Stage) -> Example:
    example = deployed(stage)
    run = example.run
    wait_for("a day", ATTEMPT_SECONDS, lambda: example.completed("load_day"))
    run.interrupt()
    wait_for("a rate", ATTEMPT_SECONDS, lambda: example.completed("fetch_rate"))
    [child, *_] = example.children()
    run.interrupt()
    Run(example.cloud, child["id"], run.notes_file).interrupt()
    wait_for("a region", ATTEMPT_SECONDS, lambda: example.completed("convert"))
    run.interrupt()
    assert run.wait_for_end()["state_type"] == "COMPLETED"
    return example


def test_row_example_flow_does_nothing_twice_and_starts_one_child(
    interrupted_everywhere: Example,
) -> None:
    example, run = interrupted_everywhere, interrupted_everywhere.run
    children = example.children()
    [child] = [child for child in children if child["deployment_id"]]  # a rerun started no other
    assert len(children) == 2, "a rerun began its subflow anew"
    assert {child["state_type"] for child in children} == {"COMPLETED"}
    results = example.results()
    assert set(results.values()) == {1}, "what was persisted was done again"
    assert len(results) == sum(TASKS.values()) + FLOWS
    assert all(key.startswith(f"{FOLDER}/") for key in results), "its role may write there only"
    kept = [record for record in map(example.result, results) if "metadata" in str(record)]
    assert {record["metadata"]["serializer"]["type"] for record in kept} == {"json"}
    assert len(kept) == sum(TASKS.values())
    for task, times in TASKS.items():
        assert example.completed(task) <= times
    logged = [line["message"] for line in example.cloud.prefect.logs(run.id)]
    assert "all regions together sold for 1406.50 USD" in logged
    assert run.capacities() == [*["FARGATE_SPOT"] * 3, "FARGATE"]
    assert not run.verdict(budget=2).findings
    assert not Run(example.cloud, child["id"], run.notes_file).verdict(budget=2).findings
    _is_placed_as_deployed(example.cloud, run)


def _is_placed_as_deployed(cloud: Cloud, run: Run) -> None:
    """Image, size and roles of every attempt are those that `deploy.py` was given."""
    assert {(life.cpu, life.memory) for life in run.containers()} == {("1024", "2048")}
    assert cloud.prefect.run(run.id)["work_queue_name"] == "nightly"
    ecs = cloud.aws.client("ecs")
    for task in ecs.describe_tasks(cluster=CLUSTER, tasks=cloud.tasks(run.id))["tasks"]:
        definition = ecs.describe_task_definition(taskDefinition=task["taskDefinitionArn"])
        definition = definition["taskDefinition"]
        roles = {
            name: task["overrides"].get(name) or definition.get(name)
            for name in ("taskRoleArn", "executionRoleArn")
        }
        assert roles == {"taskRoleArn": TASK_ROLE, "executionRoleArn": EXECUTION_ROLE}
        assert definition["containerDefinitions"][0]["image"] == IMAGE
