"""From an empty account to a rescued flow by one `chalice deploy`, and nothing else.

The schedules fire more often than on AWS. The flow's own deployment in Prefect is the user's part.
"""

import json

from localcloud.bootstrap import CLUSTER, WORK_POOL
from localcloud.cloud import PROVISION
from localcloud.deployment import PROJECT
from spotctl.project import CONFIG
from tests.e2e.scenario import Stage

CLOUDS = ("shipped",)


def test_one_chalice_deploy_with_two_settings_rescues_a_flow(stage: Stage) -> None:
    cloud = stage.cloud
    shipped, used = (
        json.loads((folder / CONFIG).read_text()) for folder in (PROJECT, cloud.folder / "project")
    )
    before, after = (each["stages"]["dev"].pop("environment_variables") for each in (shipped, used))
    assert shipped == used
    assert dict(after.items() - before.items()).keys() == {
        "PREFECT_API_URL",
        "PREFECT_API_AUTH_STRING_PARAMETER",
    }
    provisioned = cloud.lambdas.invoke(PROVISION, {"dry_run": True}).answer
    assert provisioned["state"] == "ready"
    [warning] = provisioned["warnings"]  # the account has the quota of a new one
    assert "leaves 10 of 10 concurrent executions" in warning["message"]
    run = stage.start("waits", interruptions=1)
    run.interrupt_each_start(1)
    run.completes(starts=2)
    assert not run.verdict(budget=3).findings
    clusters = {life.cluster_arn.rpartition("/")[2] for life in run.containers()}
    assert clusters == {CLUSTER}
    assert run.fields()["work_pool_name"] == WORK_POOL
