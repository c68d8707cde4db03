"""A small judge of IAM policies: what the tests of ours need, and no more.

An unknown operator raises, so that no condition is passed over. `Bool` and `StringEquals` compare
texts; `*` and `?` match across every separator, as in AWS.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

Statement = Mapping[str, Any]


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def matches(pattern: str, text: str) -> bool:
    form = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(form, text, re.DOTALL) is not None


def is_allowed(
    statements: Iterable[Statement], action: str, resource: str, about: Mapping[str, str]
) -> bool:
    """Whether one allows it and none denies it; `about`: the request's condition keys.

    A resource's policies and the caller's are taken together, as within one account.
    """
    effects = {s["Effect"] for s in statements if _is_about(s, action, resource, about)}
    return effects == {"Allow"}


def _is_about(statement: Statement, action: str, resource: str, about: Mapping[str, str]) -> bool:
    everyone = ("*", {"AWS": "*"})  # AWS's services among them
    return (
        statement.get("Principal", "*") in (*everyone, {"Service": about.get("Service")})
        and any(matches(given, action) for given in as_list(statement["Action"]))
        and any(matches(given, resource) for given in as_list(statement["Resource"]))
        and all(
            _holds(operator, about.get(key), as_list(values))
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def _holds(operator: str, value: str | None, wanted: list[str]) -> bool:
    match operator:
        case "StringEquals" | "Bool":
            return value in wanted
        case "StringLike":
            return value is not None and any(matches(each, value) for each in wanted)
        case "Null":
            return (value is None) is (wanted == ["true"])
        case "ArnEquals" | "ArnLike":
            return value is not None and any(matches(each, value) for each in wanted)
        case "ArnNotEquals" | "ArnNotLike":
            return value is None or not any(matches(each, value) for each in wanted)
        case _:
            raise ValueError(f"unknown operator {operator}")
