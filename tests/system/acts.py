"""The acts: what Prefect, AWS and the event bus do wrong while a run is rescued.

In each act only what it names goes wrong. What one plan alone cannot do (a credential that
works again, an artifact to look at) are steps in `steps.py`.
"""

from localcloud.events import delay, drop, duplicate
from localcloud.fault_proxy import (
    Answer,
    Cut,
    Fault,
    Hang,
    LoseAnswer,
    Plan,
    Reset,
    always,
    either,
    first,
    fraction,
    matching,
    nth,
    throttle,
)
from tests.system import mischief, steps
from tests.system.world import Act

READ_RUN = r"^GET /api/flow_runs/[^/]+ "
READ_HISTORY = r"^GET /api/flow_run_states/"
SET_STATE = r"^POST /api/flow_runs/.*/set_state"
PATCH = r"^PATCH /api/flow_runs/[^/]+ [^\n]*\n.*empirical_policy"
LABELS = r"^PATCH /api/flow_runs/.*/labels"
LOG = r"^POST /api/logs/"
ARTIFACT = r"^POST /api/artifacts/"
EVENT = r"^POST /api/events.*\n.*prefect-spot\.rerun"

ACQUIRE = r"DynamoDB_\d+\.UpdateItem\n.*lease_until < :now"
SAVE = r"DynamoDB_\d+\.UpdateItem\n(?!.*REMOVE lease_owner).*SET interruptions"
RELEASE = r"DynamoDB_\d+\.UpdateItem\n.*REMOVE lease_owner"
READ_RECORD = r"DynamoDB_\d+\.GetItem"
DESCRIBE = r"\.DescribeTasks"
SECRET = r"AmazonSSM\.GetParameter"

PARK, DUE = 1, 2
"""Of the run's set_states since the interruption, when nothing else goes wrong."""

TOO_MANY = Answer(429, {"Retry-After": "1"})
BROKEN = Answer(500, {"Content-Type": "application/json"}, b'{"exception_message": "oh"}')
BUSY = Answer(503, {"Content-Type": "text/plain"}, b"Service Unavailable")
UNKNOWN_KEY = Answer(401, {"Content-Type": "application/json"}, b'{"detail": "Unauthorized"}')
SILENCE = Hang(40)
"""Longer than Lambda lets a try last."""

TABLE_BUSY = throttle("ProvisionedThroughputExceededException")


def each_once(fault: Fault, *operations: str) -> Plan:
    """The first request of each kind."""
    return either(*(matching(operation, nth(1, fault)) for operation in operations))


ACTS = (
    # Prefect is out of sorts
    Act(
        "Prefect answers 429 with Retry-After",
        prefect=matching(SET_STATE, first(2, TOO_MANY)),
        after=steps.retry_after_was_waited_for,
        faults=2,
    ),
    Act("Prefect answers 500 once", prefect=matching(PATCH, nth(1, BROKEN))),
    Act("Prefect answers 503 several times", prefect=matching("", first(4, BUSY)), faults=4),
    Act(
        "connections to Prefect are reset",
        prefect=each_once(Reset(), READ_RUN, SET_STATE, PATCH, LOG, ARTIFACT, EVENT, LABELS),
        faults=7,
    ),
    Act(
        "Prefect's answers are cut in the middle",
        prefect=each_once(Cut(20), READ_RUN, READ_HISTORY, SET_STATE, ARTIFACT),
        faults=4,
    ),
    Act(
        "a fifth of Prefect's answers are lost, and a tenth are 503",
        prefect=either(fraction(1, 0.2, LoseAnswer()), fraction(2, 0.1, BUSY)),
    ),
    # Prefect is silent
    Act(
        "Prefect is silent when the run is parked",
        prefect=matching(SET_STATE, nth(1, SILENCE)),
    ),
    Act(
        "Prefect is silent when the run is made due",
        prefect=matching(SET_STATE, nth(2, SILENCE)),
    ),
    Act("Prefect is silent when people are told", prefect=matching(ARTIFACT, nth(1, SILENCE))),
    # Prefect's answers are lost after the effect
    Act("answer lost: set_state park", prefect=matching(SET_STATE, nth(PARK, LoseAnswer()))),
    Act("answer lost: set_state due", prefect=matching(SET_STATE, nth(DUE, LoseAnswer()))),
    Act(
        "answer lost: each of them in one rescue",
        prefect=either(
            matching(SET_STATE, first(2, LoseAnswer())),
            each_once(LoseAnswer(), PATCH, LOG, ARTIFACT, LABELS, EVENT),
        ),
        faults=7,
    ),
    # a due that is heard twice
    Act(
        "answer lost: set_state due, and the worker has the run before it is sent again",
        prefect=matching(
            SET_STATE, either(nth(DUE, LoseAnswer()), *(nth(n, BUSY) for n in (3, 4, 5, 6)))
        ),
        seconds=60,  # Lambda's next try finds the second attempt at work
    ),
    # Prefect's credential
    Act(
        "Prefect answers 401 until the credential is replaced",
        prefect=always(UNKNOWN_KEY),
        during=steps.replace_the_credential_once_refused,
        after=steps.was_refused_by_name_with_a_fresh_credential_too,
        faults=2,
    ),
    Act(
        "SSM throttles the credential",
        prefect=matching("", nth(1, UNKNOWN_KEY)),
        aws=matching(SECRET, first(5, throttle())),
        faults=6,
    ),
    # AWS throttles
    Act("table throttled: lease", aws=matching(ACQUIRE, first(3, TABLE_BUSY)), faults=3),
    Act("table throttled: save", aws=matching(SAVE, first(3, throttle())), faults=3),
    Act("table throttled: release", aws=matching(RELEASE, first(3, TABLE_BUSY)), faults=3),
    Act(
        "table throttled: read, for a stop whose last code says nothing of Spot",
        aws=matching(READ_RECORD, first(3, TABLE_BUSY)),
        events=mischief.exits_say_essential_container,
        faults=5,
    ),
    Act(
        "ECS throttled, for events that lack what DescribeTasks has",
        aws=matching(DESCRIBE, first(3, throttle())),
        events=mischief.as_short_as_the_guides,
        faults=5,
    ),
    Act("table throttled for longer than a try lasts", aws=matching(SAVE, first(11, TABLE_BUSY))),
    # the table's answers are lost
    Act("answer lost: lease", aws=matching(ACQUIRE, nth(1, LoseAnswer()))),
    Act("answer lost: save", aws=matching(SAVE, nth(1, LoseAnswer()))),
    Act("answer lost: release", aws=matching(RELEASE, nth(1, LoseAnswer()))),
    Act("connections to the table are reset", aws=each_once(Reset(), ACQUIRE, SAVE, RELEASE)),
    Act("the table is silent until Lambda ends the try", aws=matching(SAVE, nth(1, SILENCE))),
    # the event bus
    Act("events: each three times", events=duplicate(3), faults=3),
    Act("events: the last first", events=mischief.last_first, faults=2),
    Act("events: a quarter of a minute late", events=delay(lambda _: True, 15), faults=3),
    Act("events: no warning", events=drop(mischief.is_warning)),
    Act("events: of the exit only the last", events=drop(mischief.is_not_the_last)),
    # what events hold
    Act(
        "events: of another cluster and another account",
        before=steps.tell_of_other_clusters_and_accounts,
        faults=0,
    ),
    Act(
        "events: malformed",
        events=mischief.with_malformed_ones,
        after=steps.malformed_events_failed_nowhere,
        faults=3,
    ),
    Act(
        "events: 200 KB",
        events=mischief.oversized,
        after=steps.everything_written_is_short,
        faults=3,
    ),
    Act(
        "events: hostile strings",
        before=steps.give_the_run_a_hostile_name,
        events=mischief.hostile,
        after=steps.no_markup_of_strangers,
        faults=3,
    ),
)
