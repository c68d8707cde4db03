"""What `provision` itself says: asked for a plan, from where the Lambdas are, it changes nothing.

So it also tells whether the Lambdas reach Prefect, which this machine cannot know of itself.
"""

from spotctl.context import Context
from spotctl.rows import Row, failed, ok, warning
from spotctl.status.provisioning import FUNCTION, READY, Provisioned, provision


def look(context: Context) -> Provisioned | None:
    """Ask the function for its plan; None where this stage has none. Raises botocore's errors."""
    if FUNCTION not in context.project.functions:
        return None
    client = context.aws.client("lambda")
    try:
        return provision(context, dry_run=True)
    except client.exceptions.ResourceNotFoundException:
        return None


def rows(found: Provisioned | None) -> list[Row]:
    """Judge the plan: no steps and no problems is what is wanted."""
    if found is None:
        return []  # that it is missing, the functions' own rows say
    if found.problems:
        step = "do what it says; provision goes on by itself"
        return [failed("provision", problem, step) for problem in found.problems]
    if found.state == READY:
        return [ok("provision", "up to date, and the Lambdas reach Prefect")]
    todo = "; ".join(found.steps) or "it waits for CloudFormation"
    told = f"{found.state}: {todo}"
    return [warning("provision", told, "wait five minutes, or run spotctl deploy")]
