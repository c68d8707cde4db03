"""What seconds of a task cost, and the rates they are multiplied with."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

import infra
from chalicelib.core.model.pricing import (
    age_warning,
    checked,
    read_own_rates,
    read_rate,
    read_table,
    seconds_between,
    with_assumed,
    with_own,
)
from tests.make import NOW, make_rate, seconds

RATE = make_rate("FARGATE", "0.04048", "0.004445", "0.000111")
SPOT = make_rate("FARGATE_SPOT", "0.01288871", "0.00141527", "0.000111")


def test_times_out_of_order_are_no_time_at_all() -> None:
    assert seconds_between(NOW, NOW - seconds(5)) == 0


def table() -> Mapping[str, Any]:
    content: Mapping[str, Any] = infra.load("prices.json")
    return content


def test_every_shipped_rate_makes_sense_and_has_a_source_and_a_date() -> None:
    rates = read_table(table())
    assert ("us-east-1", "arm64", "FARGATE_SPOT") in rates
    for rate in rates.values():
        assert rate.source
        assert date.fromisoformat(rate.date) <= date(2026, 12, 31)
    for row in table()["storage"]:
        assert row["source"]
        assert date.fromisoformat(row["date"])


def test_storage_belongs_to_every_rate_of_its_region_and_to_no_other() -> None:
    rates = read_table(table())
    assert rates["us-east-1", "arm64", "FARGATE_SPOT"].storage_gb_hour_usd == Decimal("0.000111")
    assert rates["eu-west-1", "x86_64", "FARGATE"].storage_gb_hour_usd is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        pytest.param({"vcpu_hour_usd": Decimal(0)}, "not above zero", id="nothing"),
        pytest.param({"gb_hour_usd": Decimal("-0.1")}, "not above zero", id="below nothing"),
        pytest.param({"storage_gb_hour_usd": Decimal(0)}, "not above zero", id="free storage"),
        pytest.param({"vcpu_hour_usd": Decimal("0.05")}, "Spot is above on-demand", id="dear Spot"),
        pytest.param({"gb_hour_usd": Decimal("0.005")}, "Spot is above on-demand", id="dear GB"),
        pytest.param({"capacity": "FARGATE"}, "is there twice", id="twice"),
        pytest.param({"capacity": "EC2"}, "known are", id="another capacity"),
        pytest.param({"architecture": "arm"}, "known are", id="another architecture"),
        pytest.param({"region": "Virginia"}, "no AWS region", id="no region"),
    ],
)
def test_a_rate_that_cannot_be_right_is_refused(changes: dict[str, Any], complaint: str) -> None:
    right = make_rate("FARGATE_SPOT", "0.01", "0.001")
    assert checked([RATE, right])
    with pytest.raises(ValueError, match=complaint):
        checked([RATE, replace(right, **changes)])


def test_a_rate_that_is_no_number_is_refused() -> None:
    row = {**table()["rates"][0], "vcpu_hour_usd": "NaN"}
    with pytest.raises(ValueError, match="'NaN' is not a number of USD"):
        read_table({"rates": [row], "storage": []})


def test_a_rate_comes_back_from_the_line_that_bills_keep() -> None:
    bare = make_rate("FARGATE", "0.04", "0.004", source="", date="")
    for rate in (RATE, SPOT, bare):
        assert read_rate(str(rate)) == rate
    with pytest.raises(ValueError, match="is not a rate"):
        read_rate("0.04")


def test_own_rates_go_before_the_shipped_ones_and_leave_the_others() -> None:
    own = read_own_rates("us-east-1/x86_64/FARGATE=0.03/0.003, ")
    rates = with_own({RATE.key: RATE, SPOT.key: SPOT}, own)
    mine = rates["us-east-1", "x86_64", "FARGATE"]
    assert (mine.vcpu_hour_usd, mine.gb_hour_usd) == (Decimal("0.03"), Decimal("0.003"))
    assert mine.storage_gb_hour_usd == RATE.storage_gb_hour_usd
    assert (mine.source, mine.date) == ("the setting RATES", "")
    assert rates[SPOT.key] == SPOT


def test_own_rates_below_the_shipped_spot_rate_are_refused() -> None:
    own = read_own_rates("us-east-1/x86_64/FARGATE=0.01/0.003")
    with pytest.raises(ValueError, match="us-east-1/x86_64: Spot is above on-demand"):
        with_own({RATE.key: RATE, SPOT.key: SPOT}, own)


REGIONS = (
    *("af-south-1", "ap-east-1", "ap-northeast-1", "ap-northeast-2", "ap-south-1"),
    *("ap-southeast-1", "ap-southeast-2", "ca-central-1", "eu-central-1", "eu-north-1"),
    *("eu-south-1", "eu-west-1", "eu-west-2", "eu-west-3", "me-south-1", "sa-east-1"),
    *("us-east-1", "us-east-2", "us-gov-east-1", "us-gov-west-1", "us-west-1", "us-west-2"),
)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("discount", [Decimal("0.68"), Decimal("0.5"), Decimal(0)])
def test_every_region_has_rates_and_says_whether_spots_is_assumed(
    region: str, discount: Decimal
) -> None:
    shipped = read_table(table())
    rates = with_assumed(shipped, discount)
    on_demand, spot = (rates[region, "x86_64", c] for c in ("FARGATE", "FARGATE_SPOT"))
    assert not on_demand.is_assumed
    assert spot.is_assumed is (region not in ("us-east-1", "eu-west-1"))
    if spot.is_assumed:
        assert spot.vcpu_hour_usd == on_demand.vcpu_hour_usd * (1 - discount)
        assert spot.gb_hour_usd == on_demand.gb_hour_usd * (1 - discount)
        assert (spot.date, spot.storage_gb_hour_usd) == (on_demand.date, None)
    else:
        assert spot == shipped[spot.key]
    assert read_rate(str(spot)) == spot
    assert checked(rates.values()) == rates


def test_a_rate_of_ones_own_is_never_assumed_and_is_what_others_are_assumed_from() -> None:
    own = "eu-west-3/x86_64/FARGATE_SPOT=0.012/0.0013, eu-central-1/x86_64/FARGATE=0.03/0.004"
    shipped = read_table(table())
    rates = with_assumed(with_own(shipped, read_own_rates(own)), Decimal("0.75"))
    assert not rates["eu-west-3", "x86_64", "FARGATE_SPOT"].is_assumed
    assumed = rates["eu-central-1", "x86_64", "FARGATE_SPOT"]
    assert (assumed.vcpu_hour_usd, assumed.gb_hour_usd) == (Decimal("0.0075"), Decimal("0.001"))
    assert assumed.source == "assumed: on-demand less 75 %"
    assert ("cn-north-1", "x86_64", "FARGATE_SPOT") not in rates


def test_old_rates_are_warned_of_and_ones_own_are_not() -> None:
    own = make_rate("FARGATE", "0.03", "0.003", date="")
    assert age_warning([RATE, own], date(2027, 1, 30)) == ""
    assert "2026-11-01" in age_warning([own, RATE], date(2027, 1, 31))
    assert age_warning([own], date(2036, 1, 1)) == ""
