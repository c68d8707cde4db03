"""Runs that guards judge: their past, their interruption, and any facts at all."""

from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from chalicelib.core.model.policy import Policy
from chalicelib.core.policies.facts import (
    Missing,
    PolicyFacts,
    PreviousRuns,
    Progress,
    RestartOverhead,
    SpotEvidence,
)
from tests.laws.test_laws import interrupt
from tests.laws.universe import Universe
from tests.make import make_rate

RATES = {
    rate.key: rate
    for rate in (
        make_rate("FARGATE_SPOT", "0.012", "0.0013"),
        make_rate("FARGATE", "0.04", "0.004"),
    )
}
ECONOMICS = Policy(economics=True, rates=RATES)
TIGHT, AMPLE = "spot-deadline:10m", "spot-deadline:9d"
LONG, SHORT = 400_000.0, 60.0
"""Seconds of a deployment's completed run: too long for Spot by economics, and short enough."""


def after_a_run_of(universe: Universe, seconds: float) -> UUID:
    """A deployment with one completed run, which took that long."""
    deployment_id = universe.prefect.create_deployment()
    run_id = universe.prefect.create_run(deployment_id=deployment_id)
    universe.start(run_id)
    universe.passes(seconds)
    universe.prefect.engine_finishes(run_id)
    return deployment_id


def interrupted(
    universe: Universe, tags: tuple[str, ...] = (), seconds: float = LONG, ran: float = 30
) -> tuple[UUID, Any]:
    """A run after one that took `seconds`, and the event of its container's exit."""
    deployment_id = after_a_run_of(universe, seconds)
    run_id = universe.prefect.create_run(deployment_id=deployment_id, tags=tags)
    task = universe.start(run_id)
    universe.passes(ran)
    return run_id, interrupt(universe, task, "relinquishes", [2])[0]


def noted(universe: Universe, run_id: UUID) -> Any:
    [interruption] = universe.records().read(run_id).interruptions.values()
    return interruption


def calls_of(universe: Universe, event: Any) -> list[str]:
    assert universe.handle(event) is not None
    assert universe.wire is not None
    return universe.wire.calls


any_facts = st.builds(
    PolicyFacts,
    evidence=st.one_of(
        st.builds(SpotEvidence, st.floats(0, 1e5), st.integers(0, 10**5)),
        st.just(Missing("rate", "x")),
        st.none(),
    ),
    past=st.one_of(
        st.builds(
            PreviousRuns,
            st.lists(st.floats(0, 1e9), min_size=1, max_size=4).map(tuple),
            st.lists(st.floats(0, 1e9), max_size=4).map(tuple),
        ),
        st.just(Missing("past", "x")),
        st.none(),
    ),
    progress=st.one_of(
        st.builds(
            Progress,
            st.sampled_from([None, False, True]),
            st.floats(0, 1e9),
            st.floats(0, 1e9),
            st.lists(st.floats(0, 1e9), max_size=4).map(tuple),
        ),
        st.just(Missing("progress", "x")),
        st.none(),
    ),
    restart_overhead=st.one_of(
        st.builds(RestartOverhead, st.floats(0, 1e6), st.floats(0, 1e6)),
        st.just(Missing("restart_overhead", "x")),
        st.none(),
    ),
)
