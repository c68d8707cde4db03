"""The Lambdas, as Chalice deploys them: a decorator, a docstring and one call each.

Each of them is a Lambda of its own, and loads what is its own only: Lambda compiles the code of a
zip in every cold start.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from chalice.app import BaseLambdaEvent, Chalice, Rate

from chalicelib import wiring

wiring.start_cold()

# Its own logging would print each line of ours a second time: both loggers go by this name.
app = Chalice(app_name="prefect-spot", configure_logs=False)

LONGEST_FILTERS: Final = 1_500
"""Characters. A rule's pattern has 2,048 (EventBridge quotas), and the rest of ours has 450."""


def cluster_filters() -> list[Any]:
    """Return what an EventBridge pattern has for `clusterArn`: the stage's clusters and no others.

    `chalice deploy` and `chalice package` import the app with the stage's variables set (Chalice's
    `cli/factory.py`, `load_chalice_app`), so a rule matches what its function would not ignore. A
    list too long for a rule is left to the function. Raises SettingError.
    """
    clusters = wiring.clusters_of_stage()
    filters = [c if c.startswith("arn:") else {"suffix": f":cluster/{c}"} for c in clusters]
    return filters if len(str(filters)) < LONGEST_FILTERS else [{"prefix": "arn:"}]


SPOT_EVENTS: dict[str, Any] = {
    "source": ["aws.ecs"],
    "detail-type": ["ECS Task State Change"],
    "detail": {
        "clusterArn": cluster_filters(),
        "launchType": ["FARGATE", {"exists": False}],
        "$or": [
            {
                "stopCode": [
                    "SpotInterruption",
                    "TerminationNotice",
                    "TaskFailedToStart",
                    "InfrastructureHealth",
                ]
            },
            {
                "stoppedReason": [
                    {"prefix": "Your Spot Task was interrupted"},
                    {"prefix": "prefect-spot drill"},
                ]
            },
            {
                "capacityProviderName": ["FARGATE_SPOT"],
                "lastStatus": ["DEPROVISIONING", "STOPPED"],
            },
        ],
    },
}
"""Of Fargate tasks in the stage's clusters: Spot warnings and stops, drills, failed starts, and the
end of any Spot task, which may have been warned before. The warning in AWS's guide names no launch
type."""


FARGATE_STOPS: dict[str, Any] = {
    "source": ["aws.ecs"],
    "detail-type": ["ECS Task State Change"],
    "detail": {
        "clusterArn": cluster_filters(),
        "launchType": ["FARGATE", {"exists": False}],
        "lastStatus": ["STOPPED"],
    },
}
"""The end of any Fargate task there, on Spot or not: ECS's launch type is FARGATE on Spot too."""


class RawEvent(BaseLambdaEvent):
    """An event as it came: Chalice's own class raises KeyError on one without `time`."""

    context: Any

    def _extract_attributes(self, event_dict: Any) -> None:
        """Extract nothing: `core/model/ecs_task.py` reads the event, and never raises."""


@app.on_cw_event(SPOT_EVENTS)
def react(event: RawEvent) -> Mapping[str, object]:
    """Answer an interruption: record it, rerun the flow run, annotate it."""
    from chalicelib.functions.react import react as react_to

    return wiring.answer(react_to, wiring.context_of, event.to_dict(), event.context)


@app.on_cw_event(FARGATE_STOPS)
def meter(event: RawEvent) -> Mapping[str, object]:
    """Bill a stopped task, once, with what Spot saved and what has to be done again."""
    from chalicelib.functions.meter import meter as bill_once

    return wiring.answer(bill_once, wiring.context_of, event.to_dict(), event.context)


@app.schedule(Rate(1, unit=Rate.MINUTES))
def sweep(event: RawEvent) -> Mapping[str, object]:
    """Start again what got no task; every five minutes, repair all that no event reported."""
    from chalicelib.functions.sweep import sweep as sweep_all

    return wiring.answer(sweep_all, wiring.context_of, event.to_dict(), event.context)


@app.schedule(Rate(5, unit=Rate.MINUTES))
def provision(event: RawEvent) -> Mapping[str, object]:
    """Create stack and work pool, a step per call, and keep them up to date."""
    from chalicelib.functions.provision import provision as provision_all
    from chalicelib.provision_wiring import provision_context

    return wiring.answer(provision_all, provision_context, event.to_dict(), event.context)


for function in (react, meter, sweep, provision):
    function.event_class = RawEvent

own_function = os.environ.get("_HANDLER", "").rpartition(".")[2]  # Lambda sets it
if own_function in (source.name for source in app.event_sources):
    # Now, while Lambda gives a cold start a whole processor, not with the first event.
    import_module(f"chalicelib.functions.{own_function}")
