"""`make prices`: reads the rates again into `infra/prices.json`, and refuses what cannot be right.

On-demand rates come from the Price List API, which has none of Spot; those come from the feed that
the public pricing page reads. AWS does not promise that feed, so no Lambda reads it.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import boto3
import urllib3

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT
from chalicelib.core.model.pricing import read_table

TABLE: Final = Path(__file__).resolve().parent.parent / "infra" / "prices.json"

PRICE_LIST_REGION: Final = "us-east-1"
SERVICE: Final = "AmazonECS"
ON_DEMAND_SOURCE: Final = "AWS Price List API, service AmazonECS"

SPOT_FEED: Final = "https://dftu77xade0tc.cloudfront.net/fargate-spot-prices.json"
SPOT_SOURCE: Final = "aws.amazon.com/fargate/pricing, Spot table"

ABOUT: Final = (
    "USD. A row's date is the day on which it was read from its source, by `make prices`; a row"
    " that the sources did not have is as it was. A Spot rate that is not here is assumed."
)

_ON_DEMAND_USAGE: Final = {
    "Fargate-vCPU-Hours:perCPU": ("x86_64", "vcpu"),
    "Fargate-GB-Hours": ("x86_64", "gb"),
    "Fargate-ARM-vCPU-Hours:perCPU": ("arm64", "vcpu"),
    "Fargate-ARM-GB-Hours": ("arm64", "gb"),
    "Fargate-EphemeralStorage-GB-Hours": ("", "storage"),
}
"""By how a usage type ends. Windows has others, and is left out."""

_SPOT_UNITS: Final = {
    "vCPU-Hours": ("x86_64", "vcpu"),
    "GB-Hours": ("x86_64", "gb"),
    "ARM-vCPU-Hours": ("arm64", "vcpu"),
    "ARM-GB-Hours": ("arm64", "gb"),
}

Key = tuple[str, str, str]
"""Region, architecture, and what is priced: vcpu, gb or storage."""

Prices = dict[Key, Decimal]
"""In USD."""


_Row = Mapping[str, str]
_NOTHING: Final[Mapping[str, Any]] = {"rates": (), "storage": ()}


class PricesError(Exception):
    """The sources do not give a table that can be right; the one there stays as it is."""


def main() -> int:
    """Read both sources and write the table. Returns the process's exit code."""
    try:
        products = read_price_list(boto3.client("pricing", region_name=PRICE_LIST_REGION))
        feed = read_feed(urllib3.PoolManager())
        today = datetime.now(UTC).date()  # noqa: TID251  # the day on which it is read
        table = table_of(products, feed, today, json.loads(TABLE.read_text(encoding="utf-8")))
    except PricesError as error:
        print(
            f"error: infra/prices.json stays as it is: {error}\n"
            "next step: try again later, or give rates of your own in RATES",
            file=sys.stderr,
        )
        return 1
    TABLE.write_text(as_text(table), encoding="utf-8")
    of_today = sum(row["date"] == today.isoformat() for row in table["rates"])
    print(f"{len(table['rates'])} rates are in {TABLE}, {of_today} of them of {today}")
    return 0


def table_of(
    products: Iterable[str], feed: Any, today: date, before: Mapping[str, Any] = _NOTHING
) -> Mapping[str, Any]:
    """Return the table: what the product ships in `infra/prices.json`.

    `products`: the strings of GetProducts' `PriceList`. `feed`: the Spot feed, decoded. `before`:
    the table so far; of it stay, with their dates, the rows that the sources do not have.

    Raises:
        PricesError: a source is not what it was, a rate is zero, negative or no number, Spot is
            above on-demand, or one of a region's two rates is missing.
    """
    on_demand = _collect("the Price List API", _on_demand_prices(products))
    spot = _collect("the Spot feed", _spot_prices(feed))
    rates: list[_Row] = [
        *_rows(on_demand, FARGATE, ON_DEMAND_SOURCE, today),
        *_rows(spot, FARGATE_SPOT, SPOT_SOURCE, today),
    ]
    noted = {"source": ON_DEMAND_SOURCE, "date": today.isoformat()}
    storage: list[_Row] = [
        {"region": region, "gb_hour_usd": f"{usd:f}", **noted}
        for (region, _, kind), usd in sorted(on_demand.items())
        if kind == "storage"
    ]
    rates += _missing(before["rates"], rates)
    storage += _missing(before["storage"], storage)
    try:
        read_table({"rates": rates, "storage": storage})
    except ValueError as error:
        raise PricesError(str(error)) from None
    return {"about": ABOUT, "rates": rates, "storage": storage}


def _missing(before: Sequence[_Row], rows: Sequence[_Row]) -> list[_Row]:
    def key(row: _Row) -> tuple[str | None, ...]:
        return tuple(map(row.get, ("region", "architecture", "capacity")))

    found = set(map(key, rows))
    return [row for row in before if key(row) not in found]


def as_text(table: Mapping[str, Any]) -> str:
    """Return the table as JSON, a row per line, so that a change is seen row by row."""
    rows = {
        name: ",\n".join(f"    {json.dumps(row)}" for row in table[name])
        for name in ("rates", "storage")
    }
    lists = ",\n".join(f'  "{name}": [\n{text}\n  ]' for name, text in rows.items())
    return f'{{\n  "about": {json.dumps(table["about"])},\n{lists}\n}}\n'


def _rows(prices: Prices, capacity: str, source: str, today: date) -> list[_Row]:
    if not prices:
        raise PricesError(f"the source has no rates of {capacity}")
    rows: list[_Row] = []
    for region, architecture in sorted({(r, a) for r, a, kind in prices if kind != "storage"}):
        vcpu = prices.get((region, architecture, "vcpu"))
        gb = prices.get((region, architecture, "gb"))
        if vcpu is None or gb is None:
            raise PricesError(f"{region}/{architecture}/{capacity} has one rate without the other")
        row = {"region": region, "architecture": architecture, "capacity": capacity}
        usd = {"vcpu_hour_usd": f"{vcpu:f}", "gb_hour_usd": f"{gb:f}"}
        rows.append({**row, **usd, "source": source, "date": today.isoformat()})
    return rows


def _collect(source: str, found: Iterable[tuple[Key, object]]) -> Prices:
    """Return the prices without the zeros that the API pads them with."""
    prices: Prices = {}
    try:
        for key, text in found:
            usd = Decimal(str(text)).normalize()
            if prices.setdefault(key, usd) != usd:
                raise PricesError(f"{'/'.join(key)} has two prices: {prices[key]} and {usd}")
    except (ValueError, KeyError, TypeError, AttributeError, InvalidOperation) as error:
        raise PricesError(f"{source} answers in another form: {error!r}") from None
    return prices


def _on_demand_prices(products: Iterable[str]) -> Iterator[tuple[Key, object]]:
    """Fargate has neither tiers nor terms: each of its products has one price."""
    for product in map(json.loads, products):
        attributes = product["product"]["attributes"]
        usage, region = attributes["usagetype"], attributes["regionCode"]
        # A usage type stands alone, or after its region's short name and a hyphen.
        kinds = [kind for end, kind in _ON_DEMAND_USAGE.items() if f"-{usage}".endswith(f"-{end}")]
        if kinds and _is_public_region(region):
            [term] = product["terms"]["OnDemand"].values()
            [dimension] = term["priceDimensions"].values()
            yield (region, *kinds[0]), dimension["pricePerUnit"]["USD"]


def _spot_prices(feed: Any) -> Iterator[tuple[Key, object]]:
    for row in feed["prices"]:
        if kind := _SPOT_UNITS.get(row["unit"]):
            yield (row["attributes"]["aws:region"], *kind), row["price"]["USD"]


def _is_public_region(region: str) -> bool:
    """China has prices of its own, in CNY; local zones run no Fargate."""
    return not region.startswith("cn-") and region.count("-") in (2, 3) and region[-1].isdigit()


def read_price_list(client: Any) -> Iterator[str]:
    """Return the products of ECS, each a JSON text, a page at a time. Raises botocore's errors."""
    for page in client.get_paginator("get_products").paginate(ServiceCode=SERVICE):
        yield from page["PriceList"]


def read_feed(pool: urllib3.PoolManager, address: str = SPOT_FEED) -> Any:
    """Return the Spot feed, decoded. Raises PricesError for anything but JSON."""
    try:
        answer = pool.request("GET", address, timeout=30.0)
        if answer.status != 200:
            raise PricesError(f"the Spot feed answers {answer.status}")
        return answer.json()
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise PricesError(f"the Spot feed cannot be read: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
