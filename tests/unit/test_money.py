"""What an attempt cost."""

from decimal import Decimal

import pytest

import infra
from chalicelib.core.money import Rate, cost_usd, seconds_between
from tests.make import NOW, seconds

RATE = Rate(Decimal("0.04048"), Decimal("0.004445"))


def test_an_hour_of_one_vcpu_and_two_gib_costs_what_the_price_list_says() -> None:
    assert cost_usd(RATE, Decimal(3600), 1024, 2048) == Decimal("0.04937000")


def test_less_than_a_minute_is_billed_as_a_minute() -> None:
    assert cost_usd(RATE, Decimal(3), 1024, 2048) == cost_usd(RATE, Decimal(60), 1024, 2048)


def test_times_out_of_order_are_no_time_at_all() -> None:
    assert seconds_between(NOW, NOW - seconds(5)) == 0


def test_every_shipped_rate_has_a_source_and_a_date_and_makes_sense() -> None:
    rows = infra.load("prices.json")["rates"]
    on_demand = {
        (row["region"], row["architecture"]): row for row in rows if row["capacity"] == "FARGATE"
    }
    assert rows
    for row in rows:
        assert row["source"]
        assert row["date"]
        assert Decimal(row["vcpu_hour_usd"]) > 0
        assert Decimal(row["gb_hour_usd"]) > 0
        if row["capacity"] == "FARGATE_SPOT":
            dearer = on_demand[row["region"], row["architecture"]]
            assert Decimal(row["vcpu_hour_usd"]) < Decimal(dearer["vcpu_hour_usd"])


@pytest.mark.parametrize("capacity", ["FARGATE", "FARGATE_SPOT"])
def test_a_rate_appears_once(capacity: str) -> None:
    rows = [r for r in infra.load("prices.json")["rates"] if r["capacity"] == capacity]
    keys = [(r["region"], r["architecture"]) for r in rows]
    assert len(keys) == len(set(keys))
