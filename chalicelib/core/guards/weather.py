"""Whether the pool's breaker lets a rerun go to Spot: see `breaker.py` for how it comes to that."""

from typing import assert_never

from chalicelib.core.guards.breaker import BreakerPolicy, Permit, Weather, in_words
from chalicelib.core.guards.facts import Missing
from chalicelib.core.guards.opinion import GoOnDemand, Opinion, StayOnSpot
from chalicelib.core.situation import Situation


def weather_opinion(s: Situation) -> Opinion:
    """Say what the breaker's answer means for this rerun."""
    weather, policy = s.facts.weather, s.policy.guards.breaker
    match weather:
        case Weather() if policy is not None:
            return _of(weather, policy)
        case Missing():
            return weather
        case _:
            return Missing("the breaker", "it was not asked")


def _of(weather: Weather, policy: BreakerPolicy) -> Opinion:
    breaker = weather.breaker
    match weather.permit:
        case Permit.GRANTED:
            return StayOnSpot("the breaker is closed")
        case Permit.PROBE:
            return StayOnSpot(
                f"this rerun is the probe that decides on the breaker's closing (BREAKER={policy})",
                is_told=True,
            )
        case Permit.REFUSED if breaker.open_until is not None:
            return GoOnDemand(
                f"the breaker is open until {breaker.open_until:%Y-%m-%d %H:%M:%S} UTC, for"
                f" {policy.limit} interruptions or refused placements within"
                f" {in_words(policy.window)}, or for its probe's (BREAKER={policy})"
            )
        case Permit.REFUSED:
            probe = breaker.probe.flow_run_id if breaker.probe else "?"
            return GoOnDemand(
                f"the breaker waits for its probe, flow run {probe}: until then reruns go to"
                f" FARGATE (BREAKER={policy})"
            )
    assert_never(weather.permit)
