"""What `meter` bills, asks and leaves alone; each life in the laws' universe."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import pytest
from botocore.exceptions import ClientError, ParamValidationError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chalicelib.adapters.records import packed, values_of
from chalicelib.core.metrics import Metric
from chalicelib.core.model.ecs_task import Task, parse_task, reason_to_ignore
from chalicelib.core.model.flow_run import FailedStart, StateType
from chalicelib.core.model.policy import Policy
from chalicelib.core.money.bill import Bill, Deployment, believed, never_started
from chalicelib.core.money.report import Counts, DailySum, total
from chalicelib.core.ports import Undescribed
from chalicelib.errors import PrefectUnavailableError, ThrottledError
from chalicelib.functions.meter import (
    DECIDED_WITHIN,
    bill_failed_start,
    bill_missed,
    keep_accounts,
    publish_savings,
)
from tests.laws.universe import BY_ITSELF, DRILL, STOPPED_AFTER, Befalls, Tripwire, Universe
from tests.make import NOW, RATES, seconds
from tests.twin.tables import InMemoryBills
from tests.twin.tasks import InMemoryTasks

OTHERS = "arn:aws:ecs:us-east-1:111122223333:cluster/others"


@dataclass
class Account:
    """A universe with prices, and a run in it."""

    universe: Universe
    run_id: UUID
    task: Task

    def interrupted(self, *, answered: bool = True) -> dict[str, Any]:
        """Spot takes the task; return the event of its end, half a minute later."""
        self.universe.stops(self.task)
        if answered:
            self.universe.deliver(self.universe.exits(self.task)[1])
        return self.ended()

    def ended(self, **how: Any) -> dict[str, Any]:
        """The task ends (as `how` says); return the event of its end."""
        if how:
            self.universe.stops(self.task, **how)
        self.universe.now += STOPPED_AFTER
        return self.universe.end_of(self.task)

    def meter(self, event: dict[str, Any]) -> str:
        report = self.universe.meter(event)
        assert report is not None
        return report.metering.value

    @property
    def sum(self) -> DailySum:
        [daily] = self.universe.sums()
        return daily

    def numbers(self, *names: str) -> list[int]:
        return [getattr(self.sum.counts, name) for name in names]


def open_account() -> Account:
    universe = Universe(Policy(rates=RATES))
    run_id = universe.prefect.create_run()
    return Account(universe, run_id, universe.start(run_id))


@pytest.fixture
def account() -> Account:
    return open_account()


def tagged(account: Account) -> UUID:
    """Tag the task with its deployment, as the worker does; return the deployment's id."""
    deployment = account.universe.prefect.runs[account.run_id].deployment
    assert deployment is not None
    task = account.universe.tasks[account.task.arn]
    account.universe.tasks[account.task.arn] = replace(task, deployment_id=deployment.id)
    return deployment.id


def test_a_task_that_ended_by_itself_is_billed_for_one_request_to_prefect(account: Account) -> None:
    event = account.ended(**BY_ITSELF)
    deployment_id = tagged(account)
    account.universe.prefect.calls.clear()
    assert account.meter(event) == "billed"
    assert account.universe.prefect.calls == ["read_deployment_name"]
    daily = account.sum
    name = f"etl/deployment-{deployment_id}"
    assert daily.deployment == Deployment(str(deployment_id), name, POOL)
    counts = daily.counts
    assert (counts.runs, counts.attempts, counts.interruptions, counts.spot_reruns) == (1, 1, 0, 0)
    assert counts.spot_hours == Decimal(60) / 3600, "7 s until the exit and 30 s after: a minute"
    assert counts.amounts.wasted_usd == 0
    assert counts.amounts.savings_usd == counts.amounts.net_savings_usd > 0


@pytest.mark.parametrize(("persisted", "wasted_seconds"), [(True, 10 + 30), (False, 117 + 30)])
@pytest.mark.parametrize("host_died", [False, True])
def test_of_an_interruption_or_a_dead_host_what_was_not_persisted_is_wasted(
    account: Account, persisted: bool, wasted_seconds: int, host_died: bool
) -> None:
    universe = account.universe
    universe.prefect.run_task(account.run_id, StateType.COMPLETED, persisted=persisted)
    universe.passes(100)
    universe.prefect.run_task(account.run_id)
    universe.passes(10)
    died = {"stop_code": "InfrastructureHealth", "stopped_reason": ""}
    event = account.ended(**died) if host_died else account.interrupted()
    assert account.meter(event) == "billed"
    counted = account.numbers("runs", "attempts", "failed_starts", "interruptions", "spot_reruns")
    assert counted == [1, 1, host_died, not host_died, not host_died]
    counts = account.sum.counts
    assert counts.wasted_us == wasted_seconds * 10**6
    assert (counts.amounts.wasted_usd == counts.amounts.cost_usd) is not persisted
    assert (counts.amounts.net_savings_usd == -counts.amounts.cost_usd) is not persisted


def test_a_warned_task_that_left_by_itself_was_interrupted(account: Account) -> None:
    account.universe.deliver(account.universe.warning(account.task))
    account.universe.stops(account.task, **BY_ITSELF)
    account.universe.deliver(account.universe.end_of(account.task))
    assert account.meter(account.ended()) == "billed"
    assert account.sum.counts.interruptions == 1


def test_before_it_is_decided_it_is_left_to_sweep_and_in_the_end_billed_as_it_is(
    account: Account,
) -> None:
    event = account.interrupted(answered=False)
    assert account.meter(event) == "left to sweep"
    assert account.universe.sums() == ()
    account.universe.now += DECIDED_WITHIN
    assert account.meter(event) == "billed"
    assert (account.sum.counts.interruptions, account.sum.counts.spot_reruns) == (1, 0)


def test_a_sweep_leaves_the_fast_path_its_time_and_takes_its_own(account: Account) -> None:
    account.ended(**BY_ITSELF)
    assert bill_missed(account.universe.context()) == 0
    account.universe.now += account.universe.context().grace + seconds(1)
    assert bill_missed(replace(account.universe.context(), seconds_left=lambda: 1.0)) == 0
    assert bill_missed(account.universe.context()) == 1
    assert bill_missed(account.universe.context()) == 0


def test_a_sweep_bills_a_task_whose_end_ecs_did_not_date(account: Account) -> None:
    undated = {"stopped_at": None, "execution_stopped_at": None, "updated_at": None}
    account.universe.stops(account.task, **BY_ITSELF, **undated)
    assert bill_missed(account.universe.context()) == 1
    assert account.sum.counts.partial_bills == 1


def test_a_bill_that_fails_leaves_the_others_alone(account: Account) -> None:
    account.ended(**BY_ITSELF)
    universe = account.universe
    second = universe.prefect.create_run()
    replace(account, task=universe.start(second)).ended(**BY_ITSELF)
    universe.passes(600)
    assert bill_missed(universe.context(Tripwire(Befalls.FAILS_BEFORE, 4))) == 1
    assert universe.calls[4] == "prefect.read_run"
    assert bill_missed(universe.context()) == 1


# One that cannot be billed, among others.

LONG, LONE = "x" * 500_000, "\ud800"
ALWAYS = "9999-12-31T23:59:59+00:00"
ODD_FIELDS: dict[str, Sequence[object]] = {
    **dict.fromkeys(("cpu", "memory"), ("abc", None, "", 0, "0", "-1", 10**14, float("nan"), LONE)),
    "ephemeralStorage": (None, "abc", {"sizeInGiB": 10**14}, {"sizeInGiB": float("nan")}),
    **dict.fromkeys(
        ("pullStartedAt", "startedAt", "executionStoppedAt", "stoppedAt", "createdAt", "updatedAt"),
        (None, "abc", ALWAYS, "0001-01-01T00:00:00Z", "2026-11-24T00:00:00Z", 1e300, LONE),
    ),
    "taskArn": tuple(
        f"arn:{rest}"
        for rest in ("x", "aws:ecs:mars-1:1:task", ":" * 400, "aws:ecs:us-east-1:111122223333:a#b")
    ),
    "attributes": tuple(
        [{"name": "ecs.cpu-architecture", "value": value}] for value in ("z80", LONG, LONE, None, 1)
    ),
    "stopCode": (None, LONG, LONE, 1, "SpotInterruption", "TaskFailedToStart"),
    "stoppedReason": (None, LONG, LONE, DRILL["stopped_reason"] + LONG),
    "tags": tuple(
        [{"key": key, "value": value}]
        for key in (LONG, LONE, "prefect.io/deployment-id", "prefect.io/work-pool-name")
        for value in (LONG, LONE, None, str(UUID(int=7)))
    ),
    "containers": (None, [], [LONG], [{"exitCode": float("nan"), "reason": LONG}]),
    "platformFamily": ("Windows" + LONG, LONE),
}
one_of = {name: st.sampled_from(values) for name, values in ODD_FIELDS.items()}


class Refusing(InMemoryBills):
    """A table that takes what DynamoDB takes; `refuses`: by ARN, what it raises instead."""

    def __init__(self, **refuses: Exception) -> None:
        super().__init__()
        self.refuses = refuses

    def unbilled(self, task_arns: Sequence[str]) -> tuple[str, ...]:
        assert all(len(f"bill#{arn}") <= 2048 for arn in task_arns)
        return super().unbilled(task_arns)

    def write(self, bill: Bill, first: DailySum, later: DailySum) -> bool:
        if error := self.refuses.get(bill.task_arn):
            raise error
        for item in (bill, first, later):
            assert len(str(packed({"pk": "x", **values_of(item)})).encode()) < 10_000
        return super().write(bill, first, later)


@dataclass
class Shown(InMemoryTasks):
    """A cluster whose stopped tasks are these."""

    stopped: tuple[Task | Undescribed, ...] = ()

    def stopped_of(self, cluster: str) -> tuple[Task | Undescribed, ...]:
        return self.stopped


def refused(code: str, reason: str = "") -> ClientError:
    answer: Any = {"Error": {"Code": code}}
    if reason:
        answer["CancellationReasons"] = [{"Code": reason}, {"Code": "None"}]
    return ClientError(answer, "TransactWriteItems")


@dataclass
class Books:
    """Three tasks that ended by themselves, the second to be made odd, and every sweep's counts."""

    universe: Universe
    arns: list[str]
    table: Refusing

    def sweep(self) -> int:
        report = self.universe.sweep()
        assert report is not None
        return report.billed

    @property
    def others_are_billed(self) -> bool:
        return {self.arns[0], self.arns[2]} <= self.table.bills.keys()

    @property
    def noted(self) -> list[str]:
        return [*self.universe.stored.sweep.unbilled]

    @property
    def counted(self) -> Decimal:
        values = [m.values.get(Metric.SWEEP_UNJUDGED, Decimal(0)) for m in self.universe.measured]
        return sum(values, Decimal(0))

    @property
    def logged(self) -> set[object]:
        lines: Any = self.universe.log
        return {keys.get("task_arn") for text, keys in lines.lines if "bill" in text}


def open_books(**detail: object) -> Books:
    universe = Universe(Policy(rates=RATES), bills=Refusing())
    arns = []
    for number in range(3):
        run, task = universe.running()
        universe.stops(task, **BY_ITSELF)
        ended, arn = universe.end_of(task)["detail"], task.arn
        if number == 1 and detail:
            del universe.tasks[arn]
            given = {name: value for name, value in detail.items() if value is not None}
            described = parse_task({**{n: v for n, v in ended.items() if n not in detail}, **given})
            assert isinstance(described, Task)
            arn = described.arn
            universe.tasks[arn] = replace(described, desired_status="STOPPED")
        universe.prefect.engine_finishes(run.id)
        arns.append(arn)
    universe.passes(60)
    table: Any = universe.bills
    return Books(universe, arns, table)


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries({}, optional=one_of))
@example({"pullStartedAt": ALWAYS, "stoppedAt": "0001-01-01T00:00:00Z"})
@example({"cpu": 10**14, "memory": 10**14})
@example({"stopCode": "SpotInterruption", "executionStoppedAt": ALWAYS, "stoppedAt": ALWAYS})
def test_whatever_ecs_says_of_a_task_the_others_are_billed_and_the_savings_published(
    detail: dict[str, object],
) -> None:
    books = open_books(**detail)
    for _ in range(4):
        books.sweep()
    assert books.others_are_billed
    assert len(books.universe.prefect.tables) == 1
    odd = books.arns[1]
    assert (
        {odd} & (books.table.bills.keys() | {*books.noted})
        or never_started(believed(books.universe.tasks[odd], books.universe.now))
        or reason_to_ignore(books.universe.tasks[odd], *books.universe.context().scope)
    )
    assert total(books.universe.sums()).amounts.cost_usd < 1


@pytest.mark.parametrize(
    "error",
    [
        refused("TransactionCanceledException", "ValidationError"),
        refused("ValidationException"),
        refused("SerializationException"),
        refused("SomethingNew"),
        ParamValidationError(report="pk"),
        UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates not allowed"),
        InvalidOperation(),
        OverflowError(),
        TypeError("Infinity and NaN not supported"),
    ],
    ids=repr,
)
def test_a_bill_that_the_table_refuses_is_stepped_over_counted_once_and_named(
    error: Exception,
) -> None:
    books = open_books()
    books.table.refuses = {books.arns[1]: error}
    assert [books.sweep(), books.sweep()] == [2, 0]
    assert books.others_are_billed
    assert len(books.universe.prefect.tables) == 1
    assert books.arns[1] in books.logged
    while books.universe.now < NOW + seconds(2400):
        books.sweep()
    assert books.noted == [books.arns[1]]
    assert books.counted == 1
    books.table.refuses = {}
    assert books.sweep() == 1
    assert books.noted == []


THROTTLED = (refused("ThrottlingException"), ThrottledError("busy", next_step="none"))


@pytest.mark.parametrize("error", THROTTLED, ids=repr)
def test_what_passes_is_tried_again_in_each_sweep_and_counted_only_when_it_does_not_pass(
    error: Exception,
) -> None:
    books = open_books()
    books.table.refuses = dict.fromkeys(books.arns, error)
    for _ in range(3):
        assert books.sweep() == 0
    assert not books.noted
    assert not books.counted
    assert len(books.universe.prefect.tables) == 1
    books.table.refuses = {}
    assert books.sweep() == 3


def test_when_aws_throttles_all_a_sweep_stops_after_three() -> None:
    books = open_books()
    more = [books.universe.running()[1] for _ in range(7)]
    for task in more:
        books.universe.stops(task, **BY_ITSELF)
    books.table.refuses = dict.fromkeys([*books.arns, *(task.arn for task in more)], THROTTLED[0])
    books.sweep()
    assert books.universe.calls.count("bills.write") == 3


def test_a_task_that_ecs_does_not_describe_is_named_and_the_others_are_billed() -> None:
    books = open_books()
    universe, odd = books.universe, books.arns[1]
    others = [task for task in universe.tasks.values() if task.arn != odd]
    shown: tuple[Task | Undescribed, ...] = (Undescribed("no reason given", odd), *others)
    universe.passes(300)
    context = replace(universe.context(), tasks=Shown(universe.tasks, stopped=shown))
    for _ in range(2):
        keep_accounts(context, universe.stored.sweep)
    assert books.others_are_billed
    assert books.noted == [odd]
    assert books.counted == 1
    assert odd in books.logged
    assert books.sweep() == 1
    assert books.noted == []


@pytest.mark.parametrize("name", [LONG, LONE * 3, LONE + LONG, "é" * 500_000], ids=["long", *"abc"])
def test_a_name_is_cut_to_what_the_table_takes(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    books = open_books()
    monkeypatch.setattr(books.universe.prefect, "read_deployment_name", lambda _: name)
    assert books.sweep() == 3
    [table] = books.universe.prefect.tables
    assert len(str(table).encode()) < 20_000


def test_what_left_ecs_unbilled_is_forgotten_after_an_hour() -> None:
    books = open_books()
    books.table.refuses = {books.arns[1]: ValueError()}
    books.sweep()
    del books.universe.tasks[books.arns[1]]
    assert books.noted == [books.arns[1]]
    books.universe.passes(3700)
    books.sweep()
    assert books.noted == []


def test_a_drill_is_billed_apart_and_measured_nowhere(account: Account) -> None:
    account.universe.stops(account.task, **DRILL)
    account.universe.deliver(account.universe.end_of(account.task))
    assert account.meter(account.ended()) == "billed"
    assert account.sum.deployment.key == "drills"
    assert account.sum.counts.interruptions == 0
    assert total(account.universe.sums()).amounts.cost_usd == 0
    assert not [m for m in account.universe.measured if Metric.TASK_COST in m.values]


def unstarted(reason: str, **how: Any) -> dict[str, Any]:
    """The task stops before its container started."""
    unborn = dict.fromkeys(("pull_started_at", "started_at", "execution_stopped_at"))
    return {**unborn, "stop_code": "TaskFailedToStart", "stopped_reason": reason, **how}


@pytest.mark.parametrize("code", ["TaskFailedToStart", "UserInitiated"])
def test_a_refused_or_stopped_task_that_never_started_is_not_charged(
    account: Account, code: str
) -> None:
    event = account.ended(**unstarted("Capacity is unavailable at this time.", stop_code=code))
    assert account.meter(event) == "not charged"
    account.universe.passes(600)
    assert bill_missed(account.universe.context()) == 0
    assert account.universe.sums() == ()


@pytest.mark.parametrize("by_sweep", [False, True])
@pytest.mark.parametrize("pulled", [False, True])
def test_a_failed_start_is_counted_once_and_charged_from_its_image_pull(
    account: Account, by_sweep: bool, pulled: bool
) -> None:
    universe = account.universe
    pull = {"pull_started_at": universe.now} if pulled else {}
    event = account.ended(**unstarted("Timeout waiting for network interface", **pull))
    assert by_sweep or account.meter(event) == "billed"
    universe.passes(600)
    assert bill_missed(universe.context()) == by_sweep
    assert account.meter(event) == "billed before"
    assert account.sum.counts.wasted_us == account.sum.counts.spot_us == 60 * 10**6 * pulled
    assert account.numbers("failed_starts", "runs", "attempts") == [1, 0, 0]
    account.task = replace(account.task, arn=f"{account.task.arn}-2")  # the run's next start
    assert account.meter(account.ended(**BY_ITSELF)) == "billed"
    assert account.numbers("failed_starts", "runs", "attempts") == [1, 1, 1]


def test_a_failed_start_without_a_task_is_counted_once_by_its_key(account: Account) -> None:
    universe = account.universe
    run = universe.prefect.read_run(account.run_id)
    failed = FailedStart("prefect-spot:0123", 1, 1, "passing", "FARGATE", recorded_at=universe.now)
    assert run is not None
    for metering in ("billed", "billed before"):
        assert bill_failed_start(universe.context(), run, failed).metering.value == metering
    daily = account.sum
    assert daily.deployment.key == str(run.deployment_id)
    assert daily.counts == Counts(failed_starts=1)


def test_a_task_of_no_flow_run_is_billed_as_such(account: Account) -> None:
    worker = replace(account.task, flow_run_id=None, capacity_provider="")
    account.universe.stops(worker, **BY_ITSELF)
    event = account.ended()
    event["detail"]["overrides"] = {}
    assert account.meter(event) == "billed"
    counts = account.sum.counts
    assert account.sum.deployment.key == "no-flow-run"
    assert (counts.runs, counts.attempts) == (0, 0)
    assert counts.amounts.savings_usd == 0
    assert counts.amounts.cost_usd > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"lastStatus": "DEPROVISIONING"},
        {"launchType": "EC2"},
        {"clusterArn": OTHERS},
        {
            "clusterArn": OTHERS.replace("us-east-1", "eu-west-1").replace(
                "others", "prefect-spot-dev"
            )
        },
    ],
    ids=["not stopped yet", "not on Fargate", "another cluster", "another region"],
)
def test_what_is_not_ours_to_bill(account: Account, changes: dict[str, Any]) -> None:
    event = account.ended(**BY_ITSELF)
    event["detail"] |= changes
    assert account.meter(event) == "ignored"
    assert account.meter({}) == "ignored"
    assert account.universe.sums() == ()


POOL = "fargate-spot-test"


@pytest.mark.parametrize("by_sweep", [False, True], ids=["meter", "sweep"])
@pytest.mark.parametrize(
    ("shown", "pools", "is_billed"),
    [
        ({"work_pool": POOL}, (POOL,), True),
        ({"work_pool": ""}, (POOL,), True),
        ({"work_pool": "its-name-for-aws"}, (POOL,), True),
        ({"work_pool": "theirs"}, ("ours",), False),
        ({"work_pool": ""}, ("ours",), False),
        ({"work_pool": "theirs"}, (), True),
        ({"launch_type": "EC2"}, (), False),
        ({"capacity_provider": "my-instances"}, (), False),
    ],
)
def test_what_ecs_alone_shows_to_be_another_pools_or_not_on_fargate_is_not_billed(
    account: Account, shown: dict[str, Any], pools: tuple[str, ...], is_billed: bool, by_sweep: bool
) -> None:
    universe = account.universe
    universe.policy = replace(universe.policy, work_pools=pools)
    event = account.ended(**BY_ITSELF)
    del event["detail"]["launchType"], event["detail"]["capacityProviderName"]
    universe.tasks[account.task.arn] = replace(universe.tasks[account.task.arn], **shown)
    universe.passes(600)
    if by_sweep:
        assert bill_missed(universe.context()) == is_billed
    else:
        assert account.meter(event) == ("billed" if is_billed else "ignored")
    assert len(universe.sums()) == is_billed


@pytest.mark.parametrize("by_sweep", [False, True], ids=["meter", "sweep"])
@pytest.mark.parametrize(
    ("shown", "counted"),
    [
        ({"work_pool": "ml"}, "ml"),
        ({"work_pool": "its-name-for-aws"}, POOL),
        ({"work_pool": ""}, POOL),
        ({"work_pool": "", "flow_run_id": None}, "etl"),
    ],
)
def test_a_task_is_billed_and_measured_for_its_own_pool_or_for_the_first(
    account: Account, shown: dict[str, Any], counted: str, by_sweep: bool
) -> None:
    universe = account.universe
    universe.policy = replace(universe.policy, work_pools=("etl", POOL, "ml"))
    event = account.ended(**BY_ITSELF)
    if "flow_run_id" in shown:
        del event["detail"]["overrides"]
    universe.tasks[account.task.arn] = replace(universe.tasks[account.task.arn], **shown)
    universe.passes(600)
    if by_sweep:
        assert bill_missed(universe.context()) == 1
    else:
        assert account.meter(event) == "billed"
    [bill] = universe.bills.read_bills()
    assert account.sum.deployment.work_pool == bill.deployment.work_pool == counted
    assert [measured.work_pool for measured in universe.measured] == [counted]


def test_a_name_that_cannot_be_read_delays_no_bill(account: Account) -> None:
    event = account.ended(**BY_ITSELF)
    deployment_id = tagged(account)
    account.universe.prefect.failure = PrefectUnavailableError("down", next_step="none")
    assert account.meter(event) == "billed"
    assert account.sum.deployment.title == f"({deployment_id})"


@pytest.mark.parametrize("forgotten", [False, True])
def test_the_event_counts_where_ecs_describes_an_older_state_or_none(
    account: Account, forgotten: bool
) -> None:
    event = account.ended(**BY_ITSELF)
    older = replace(account.universe.tasks.pop(account.task.arn), stopped_at=None)
    if not forgotten:
        account.universe.tasks[account.task.arn] = older
    assert account.meter(event) == "billed"
    assert account.sum.counts.partial_bills == 0


def test_the_amounts_that_are_measured_are_those_of_the_bill(account: Account) -> None:
    assert account.meter(account.interrupted()) == "billed"
    assert account.meter(account.ended()) == "billed before"
    [measured] = [m.values for m in account.universe.measured if Metric.TASK_COST in m.values]
    counts = account.sum.counts
    assert measured == {
        Metric.TASK_COST: counts.amounts.cost_usd,
        Metric.ON_DEMAND_EQUIVALENT_COST: counts.amounts.on_demand_usd,
        Metric.SAVINGS: counts.amounts.savings_usd,
        Metric.WASTED_COST: counts.amounts.wasted_usd,
        Metric.NET_SAVINGS: counts.amounts.net_savings_usd,
        Metric.WASTED_SECONDS: Decimal(counts.wasted_us) / 10**6,
    }


# The law: any order, any duplication.

deliveries = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["meter", "meter", "sweep"])), max_size=10
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(deliveries=deliveries)
def test_in_any_order_and_with_any_duplication_each_task_is_billed_once(
    deliveries: Sequence[tuple[int, str]],
) -> None:
    account = open_account()
    universe, ends = account.universe, []
    for number in range(3):
        if number:
            account.task = universe.start(account.run_id)
        ends.append(account.interrupted() if number < 2 else account.ended(**BY_ITSELF))
    for number, function in deliveries:
        if function == "meter":
            universe.meter(ends[number])
        else:
            universe.sweep()
    for end in ends:
        universe.meter(end)
    counts = total(universe.sums())
    assert (counts.runs, counts.attempts, counts.interruptions) == (1, 3, 2)
    assert (counts.spot_reruns, counts.partial_bills) == (2, 0)
    assert counts.spot_hours == 3 * Decimal(60) / 3600
    assert len([m for m in universe.measured if Metric.TASK_COST in m.values]) == 3


def test_once_a_day_the_savings_are_put_into_prefect(account: Account) -> None:
    assert account.meter(account.interrupted()) == "billed"
    prefect = account.universe.prefect
    assert publish_savings(account.universe.context())
    assert not publish_savings(account.universe.context())
    [table] = prefect.tables
    assert table.key == "spot-savings"
    assert [row["deployment"] for row in table.rows] == [
        account.sum.deployment.name,
        "all",
    ]
    net = f"{account.sum.counts.amounts.net_savings_usd:.6f}"
    assert table.rows[-1]["net USD"] == float(net) != 0
    assert f"net of what had to be run again: {net} USD" in table.description
    account.universe.now += timedelta(days=1)
    assert publish_savings(account.universe.context())
