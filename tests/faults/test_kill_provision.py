"""Kill anywhere, for `provision`: it dies before or after each of its calls, and is called again.

Or the call fails, and it lives on: AWS throttles for longer than boto3 tries, or Prefect is busy.

The account is moto's, the pools are the twin's; what there is in the end has to be the same.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from moto import mock_aws
from moto.cloudformation.models import cloudformation_backends

from chalicelib.core.provision.model import ProvisionState
from chalicelib.functions.provision import provision
from localcloud import moto_additions
from tests.faults.ledger import Ledger
from tests.faults.test_kill_anywhere import DIES, operations
from tests.laws.universe import FAILURES, Befalls, Tripwire
from tests.provision_bench import Bench, empty_account
from tests.provisioning import ACCOUNT, REGION, STACK_NAME, STACK_TEMPLATE, WORK_POOL, make_desired

FUNCTIONS = tuple(f"{STACK_NAME}-{name}" for name in ("react", "provision"))
PORTS = ("aws", "work_pools")
MOST_CALLS = 10


def from_nothing_at_all(_bench: Bench) -> None:
    """Neither stack nor pool."""


def from_nothing(bench: Bench) -> None:
    bench.pools.create_pool(WORK_POOL, template={})  # a worker was quicker


def after_another_deploy(bench: Bench) -> None:
    bench.until_ready()
    bench.deploy()


def a_failed_creation(bench: Bench) -> None:
    bench.until_ready()
    [stack] = cloudformation_backends[ACCOUNT][REGION].stacks.values()
    stack.status = "ROLLBACK_COMPLETE"


def a_newer_template(bench: Bench) -> None:
    bench.until_ready()
    newer = {**STACK_TEMPLATE, "Description": "newer"}
    bench.desired = make_desired(functions=FUNCTIONS, template=newer, use_spot=False)


PLOTS: dict[str, Callable[[Bench], None]] = {
    "from nothing at all": from_nothing_at_all,
    "from nothing": from_nothing,
    "after another deploy": after_another_deploy,
    "a failed creation": a_failed_creation,
    "a newer template": a_newer_template,
}
"""What there is before `provision` is called until all is ready."""


def live(plot: str, fault: Tripwire | None = None) -> tuple[str, list[str]]:
    """Call it until all is ready, once with a fault; return what there is, and the calls made.

    The fault's call is counted from the first call of all; after a failure the count is over.
    """
    moto_additions.install()
    with mock_aws():
        empty_account()
        bench = Bench(make_desired(functions=FUNCTIONS))
        bench.store_key()
        bench.deploy()
        PLOTS[plot](bench)
        calls: list[str] = []
        for _ in range(MOST_CALLS):
            wire = Tripwire(fault.befalls, fault.at - len(calls)) if fault else Tripwire()
            context = bench.context()
            ports = {name: wire.around(getattr(context, name), name) for name in PORTS}
            try:
                report = provision(replace(context, **ports), {})
            except FAILURES:
                calls += wire.calls
                break
            calls += wire.calls
            if report.state is ProvisionState.READY:
                break
        bench.until_ready(MOST_CALLS)
        bench.forget()
        bench.provision()
        assert bench.changes == [], "it is not up to date"
        ended = repr(bench.end())  # in which each life's default VPC has ids of its own
        subnets = bench.aws["ec2"].describe_subnets()["Subnets"]
        for number, subnet in enumerate(sorted(subnet["SubnetId"] for subnet in subnets)):
            ended = ended.replace(subnet, f"subnet {number}")
        return ended.replace(subnets[0]["VpcId"], "the VPC"), calls


@pytest.mark.parametrize("plot", PLOTS)
def test_wherever_it_dies_the_end_is_the_same(plot: str) -> None:
    whole, calls = live(plot)
    names = operations(calls)
    # Between two calls nothing happens: dying before one is dying after the one before it.
    points = [(names[0], "before"), *((name, "after") for name in names)]
    killed = set()
    with Ledger("provision").case(f"provision dies: {plot}") as case:
        for name, phase in points:
            end, done = live(plot, Tripwire(DIES[phase], names.index(name)))
            killed.add((operations(done)[-1], phase))
            case.tries += 1
            assert end == whole, f"{phase} {name}"
        case.recorded_points, case.kill_points = len(points), len(killed)
    assert killed == set(points), "it died somewhere else"


def test_whatever_call_fails_the_end_is_the_same() -> None:
    """From nothing: what AWS holds is then as after a death at the call before."""
    plot = "from nothing"
    whole, calls = live(plot)
    names = operations(calls)
    with Ledger("provision").case(f"provision fails to call AWS or Prefect: {plot}") as case:
        for number, name in enumerate(names):
            end, done = live(plot, Tripwire(Befalls.FAILS_BEFORE, number))
            assert name in operations(done), "another call failed"
            case.tries += 1
            assert end == whole, name
