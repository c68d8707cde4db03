"""Creates an ecs work pool with Prefect's own SDK: prefect-aws's template, with our defaults.

Run as a program, `python -m localcloud.work_pool NAME DEFAULTS CONTAINER`, the last two in JSON:
the SDK takes seconds to import and reads its settings from the environment.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect_aws.workers import ECSWorker


def template(defaults: dict[str, Any], container: dict[str, Any]) -> dict[str, Any]:
    """Return the default base job template, with variables' defaults and container fields set."""
    base: dict[str, Any] = ECSWorker.get_default_base_job_template()
    for name, value in defaults.items():
        base["variables"]["properties"][name]["default"] = value
    base["job_configuration"]["task_definition"]["containerDefinitions"][0].update(container)
    return base


def main(name: str, defaults: str, container: str) -> None:
    """Create the pool. Raises whatever Prefect's client raises."""
    pool = WorkPoolCreate(
        name=name,
        type="ecs",
        base_job_template=template(json.loads(defaults), json.loads(container)),
    )
    with get_client(sync_client=True) as client:
        client.create_work_pool(pool)


if __name__ == "__main__":
    main(*sys.argv[1:])
