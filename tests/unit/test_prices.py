"""`make prices`: what it makes of its two sources, and what it refuses."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import boto3
import pytest
import urllib3
from botocore.stub import Stubber

import infra
from chalicelib.core.model.pricing import read_table
from tests.unit.scripted_server import ScriptedServer, answer, answer_raw
from tools.prices import PricesError, as_text, read_feed, read_price_list, table_of

PRICES = Path(__file__).parents[1] / "prices"
TODAY = date(2026, 11, 24)


def products() -> list[str]:
    answered: list[str] = json.loads((PRICES / "get-products.json").read_text())["PriceList"]
    return answered


def feed() -> dict[str, Any]:
    answered: dict[str, Any] = json.loads((PRICES / "fargate-spot-prices.json").read_text())
    return answered


def rows(table: Any) -> dict[tuple[str, ...], tuple[str, ...]]:
    """vCPU's and GB's rates by region, architecture and capacity."""
    key, rate = ("region", "architecture", "capacity"), ("vcpu_hour_usd", "gb_hour_usd")
    return {tuple(row[k] for k in key): tuple(row[r] for r in rate) for row in table["rates"]}


def test_the_table_has_what_the_sources_say_as_it_is_shipped_and_nothing_of_windows() -> None:
    table, shipped = table_of(products(), feed(), TODAY), infra.load("prices.json")
    found = rows(table)
    assert sorted(found) == [
        ("eu-central-1", "x86_64", "FARGATE"),
        ("eu-west-1", "arm64", "FARGATE"),
        ("eu-west-1", "x86_64", "FARGATE"),
        ("eu-west-1", "x86_64", "FARGATE_SPOT"),
        *(("us-east-1", "arm64", capacity) for capacity in ("FARGATE", "FARGATE_SPOT")),
        *(("us-east-1", "x86_64", capacity) for capacity in ("FARGATE", "FARGATE_SPOT")),
    ]
    assert found == {key: rate for key, rate in rows(shipped).items() if key in found}
    assert found["us-east-1", "arm64", "FARGATE_SPOT"] == ("0.01030969", "0.00113349")
    assert [(row["region"], row["gb_hour_usd"]) for row in table["storage"]] == [
        ("us-east-1", "0.000111")
    ]
    sources = {row["capacity"]: row["source"] for row in table["rates"]}
    assert "Price List API" in sources["FARGATE"]
    assert "Spot" in sources["FARGATE_SPOT"]
    assert {row["date"] for row in (*table["rates"], *table["storage"])} == {"2026-11-24"}


def test_what_is_written_can_be_read_by_the_product() -> None:
    text = as_text(table_of(products(), feed(), TODAY))
    assert read_table(json.loads(text)) == read_table(table_of(products(), feed(), TODAY))
    assert max(map(len, text.splitlines())) < 260, "a row per line"


def test_a_row_that_the_sources_do_not_have_stays_as_it_was_with_its_date() -> None:
    shipped = infra.load("prices.json")
    table = table_of(products(), feed(), TODAY, shipped)
    assert rows(table) == rows(shipped), "the sources say the same as is shipped"
    fresh = rows(table_of(products(), feed(), TODAY))
    key = ("region", "architecture", "capacity")
    of_today = {tuple(r[k] for k in key) for r in table["rates"] if r["date"] == str(TODAY)}
    assert of_today == set(fresh)
    assert [row["date"] for row in table["storage"]] == [str(TODAY)]


def priced(*usd: str) -> list[str]:
    """The products, the first of them at these prices."""
    product = json.loads(products()[0])
    [term] = product["terms"]["OnDemand"].values()
    term["priceDimensions"] = {
        f"{n}": {"pricePerUnit": {"USD": each}} for n, each in enumerate(usd)
    }
    return [json.dumps(product), *products()[1:]]


SPOT = feed()["prices"]
TWICE = {**SPOT[0], "price": {"USD": "0.011"}}


HALF = [row for row in SPOT if row["unit"] != "GB-Hours"]
OTHER_FORM = "in another form"


@pytest.mark.parametrize(
    ("on_demand", "spot", "complaint"),
    [
        (priced("0.0000000000"), SPOT, "not above zero"),
        (priced("N/A"), SPOT, OTHER_FORM),
        (priced("1", "1"), SPOT, OTHER_FORM),
        *((listed, SPOT, OTHER_FORM) for listed in (["no JSON"], ["[]"], ['{"product": null}'])),
        (products(), None, OTHER_FORM),
        (products(), [], "no rates of FARGATE_SPOT"),
        (products(), [{}], OTHER_FORM),
        (products(), HALF, "one rate without the other"),
        (products(), [*SPOT, TWICE], "has two prices"),
    ],
)
def test_sources_that_cannot_be_right_are_refused(
    on_demand: list[str], spot: object, complaint: str
) -> None:
    with pytest.raises(PricesError, match=complaint):
        table_of(on_demand, {"prices": spot}, TODAY)


def test_all_pages_of_the_price_list_are_read() -> None:
    client = boto3.client(
        "pricing", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    first = {"ServiceCode": "AmazonECS"}
    with Stubber(client) as pricing:
        page = {"FormatVersion": "aws_v1", "PriceList": products()[:5], "NextToken": "more"}
        pricing.add_response("get_products", page, first)
        last = {"FormatVersion": "aws_v1", "PriceList": products()[5:]}
        pricing.add_response("get_products", last, {**first, "NextToken": "more"})
        assert list(read_price_list(client)) == products()


def test_the_feed_is_read_and_anything_else_is_refused() -> None:
    with ScriptedServer([answer(200, feed()), answer(503), answer_raw(b"<html>", 200)]) as server:
        pool, address = urllib3.PoolManager(retries=False), f"{server.url}/prices.json"
        assert read_feed(pool, address) == feed()
        with pytest.raises(PricesError, match="answers 503"):
            read_feed(pool, address)
        with pytest.raises(PricesError, match="cannot be read"):
            read_feed(pool, address)
    with pytest.raises(PricesError, match="cannot be read"):
        read_feed(urllib3.PoolManager(retries=False), address)
