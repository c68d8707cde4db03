"""A flow that only waits: what a drill starts, and interrupts, where nobody has one to spare.

Its code stands in its deployment, as a pull step that writes it down. So it runs in whatever image
the work pool starts, and nothing has to be built, pushed or stored for the first drill.
"""

from base64 import b64encode
from typing import Final

from chalicelib.core.model.ecs_task import FARGATE_SPOT
from spotctl.context import Context
from spotctl.errors import RefusedError
from spotctl.prefect import Deployment

FLOW: Final = "spot-drill"
NAME: Final = "throw-away"

_FILE: Final = "spot_drill.py"
_SOURCE: Final = f'''\
from time import sleep

from prefect import flow


@flow(name="{FLOW}", retries=0)
def wait(seconds: float = 60) -> None:
    """Only waits: `spotctl drill` started it, and interrupts it."""
    sleep(seconds)
'''


def throw_away(context: Context) -> Deployment:
    """Save the flow's deployment in the stage's work pool, on Spot, and return it.

    A second call replaces it with the same. It stays in Prefect: its runs can be read there.

    Raises:
        RefusedError: the work pool is not there; also PrefectSpotError.
    """
    pool = context.project.settings.work_pool
    if context.prefect.work_pool(pool) is None:
        raise RefusedError(
            f"Prefect does not know the work pool {pool}", next_step="run spotctl deploy"
        )
    return context.prefect.save_deployment(
        FLOW,
        NAME,
        pool,
        entrypoint=f"{_FILE}:wait",
        pull_steps=[{"prefect.deployments.steps.run_shell_script": {"script": _script()}}],
        job_variables={"launch_type": FARGATE_SPOT},
    )


def _script() -> str:
    """One command without a shell: the text is encoded, so that nothing in it needs quotes."""
    text = b64encode(_SOURCE.encode()).decode()
    return (
        'python -c "import base64, pathlib;'
        f" pathlib.Path('{_FILE}').write_bytes(base64.b64decode('{text}'))\""
    )
