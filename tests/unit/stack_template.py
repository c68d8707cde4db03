"""The stack's template as CloudFormation reads it: conditions and functions worked out.

A reading of its own, so that neither moto's nor the product's is trusted.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import infra

Template = dict[str, Any]
Resources = dict[str, dict[str, Any]]
Names = Callable[[str, str | None], str]
"""What Ref (attribute None) and Fn::GetAtt say of a resource, by its logical id."""

ACCOUNT: Final = "123456789012"
REGION: Final = "us-east-1"
STACK: Final = "prefect-spot-dev"
PSEUDO: Final = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::StackName": STACK,
}

_NO_VALUE: Final = object()
_PLACE: Final = re.compile(r"\$\{(!?)([^}]*)\}")


def template() -> Template:
    """Return a copy that a test may change."""
    loaded: Template = json.loads(json.dumps(infra.load("stack.json")))
    return loaded


def parameters(**changes: str) -> dict[str, str]:
    """Return what `provision` passes by default, in the order agreed, changed by `changes`."""
    agreed = {
        "Stage": "dev",
        "Provision": "full",
        "PrefectApiUrl": "https://prefect.example.com/api",
        "ApiKeyParameter": "/prefect-spot/dev/api-key",
        "AuthStringParameter": "",
        "WorkPool": "fargate-spot-dev",
        "ClusterName": "prefect-spot-dev",
        "VpcId": "vpc-0123456789abcdef0",
        "SubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
        "SecurityGroupIds": "",
        "AssignPublicIp": "ENABLED",
        "UseSpot": "true",
        "SpotWeight": "3",
        "FargateWeight": "2",
        "FargateBase": "1",
        "WorkerImage": "prefecthq/prefect-aws:latest",
        "WorkerCpu": "512",
        "WorkerMemory": "1024",
        "WorkQueues": "",
        "WorkerQuerySeconds": "10",
        "LogLevel": "INFO",
        "LogRetentionDays": "30",
        "AlarmEmail": "",
        "TableName": "prefect-spot-dev",
    }
    assert set(changes) <= set(agreed)
    return {**agreed, **changes}


def rescue_only(**changes: str) -> dict[str, str]:
    """Return what `provision` passes for teams that have a cluster, pool and worker already."""
    empty = {"Provision": "rescue-only", "VpcId": "", "SubnetIds": ""}
    return parameters(**{**empty, **changes})


def some_names(logical_id: str, attribute: str | None) -> str:
    """Say something that could be a resource's name or attribute."""
    match attribute:
        case None:
            return f"the-{logical_id.lower()}"
        case "Arn":
            return f"arn:aws:some:{REGION}:{ACCOUNT}:{logical_id}"
        case "GroupId":
            return "sg-0123456789abcdef0"
        case _:
            return f"{attribute.lower()}-of-{logical_id.lower()}"


def resources(source: Template, given: Mapping[str, str], names: Names = some_names) -> Resources:
    """Return the resources that are made with these parameters, everything worked out.

    Raises KeyError for what is not there, and ValueError for a function that is not known.
    """
    work = _Work(source, given, names)
    return {
        logical_id: work.out(resource)
        for logical_id, resource in source["Resources"].items()
        if work.holds(resource)
    }


def outputs(
    source: Template, given: Mapping[str, str], names: Names = some_names
) -> dict[str, str]:
    """Return the outputs that there are with these parameters."""
    work = _Work(source, given, names)
    return {
        name: work.out(output["Value"])
        for name, output in source["Outputs"].items()
        if work.holds(output)
    }


def mentioned(value: Any) -> Iterator[str]:
    """Yield every name that Ref or Fn::Sub mentions, anywhere below."""
    match value:
        case {"Ref": str(name)}:
            yield name
        case {"Fn::Sub": str(text)}:
            yield from (name for mark, name in _PLACE.findall(text) if not mark)
        case {"Fn::Sub": [str(text), dict(own)]}:
            yield from (name for mark, name in _PLACE.findall(text) if not mark and name not in own)
            yield from mentioned(own)
        case dict():
            for inner in value.values():
                yield from mentioned(inner)
        case list():
            for inner in value:
                yield from mentioned(inner)


class _Work:
    def __init__(self, source: Template, given: Mapping[str, str], names: Names) -> None:
        self._source = source
        self._known = {**PSEUDO, **given}  # given ones may name another stack
        self._names = names

    def holds(self, part: Mapping[str, Any]) -> bool:
        return "Condition" not in part or self._condition({"Condition": part["Condition"]})

    def out(self, value: Any) -> Any:
        match value:
            case {"Ref": str(name)}:
                return self._ref(name)
            case {"Fn::GetAtt": [logical_id, attribute]}:
                return self._attribute(logical_id, attribute)
            case {"Fn::Sub": str(text)}:
                return self._substitute(text, {})
            case {"Fn::Sub": [text, own]}:
                return self._substitute(text, self.out(own))
            case {"Fn::Join": [between, parts]}:
                return between.join(self.out(parts))
            case {"Fn::Split": [between, text]}:
                return self.out(text).split(between)
            case {"Fn::If": [condition, yes, no]}:
                return self.out(yes if self._condition({"Condition": condition}) else no)
            case _:
                return self._within(value)

    def _within(self, value: Any) -> Any:
        match value:
            case dict():
                if unknown := [name for name in value if name.startswith("Fn::")]:
                    raise ValueError(f"{unknown[0]} is not known here, or has another form")
                worked = {name: self.out(inner) for name, inner in value.items()}
                return {name: inner for name, inner in worked.items() if inner is not _NO_VALUE}
            case list():
                return [inner for inner in map(self.out, value) if inner is not _NO_VALUE]
            case _:
                return value

    def _ref(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return _NO_VALUE
        if name in self._known:
            return self._known[name]
        return self._names(self._there(name), None)

    def _attribute(self, logical_id: str, attribute: str) -> str:
        return self._names(self._there(logical_id), attribute)

    def _there(self, logical_id: str) -> str:
        if not self.holds(self._source["Resources"][logical_id]):
            raise KeyError(f"{logical_id} is not made with these parameters")
        return logical_id

    def _substitute(self, text: str, own: Mapping[str, str]) -> str:
        def put(place: re.Match[str]) -> str:
            mark, name = place.groups()
            if mark:
                return f"${{{name}}}"
            if name in own:
                return own[name]
            logical_id, dot, attribute = name.partition(".")
            return str(self._attribute(logical_id, attribute) if dot else self._ref(name))

        return _PLACE.sub(put, text)

    def _condition(self, condition: Any) -> bool:
        match condition:
            case {"Condition": name}:
                return self._condition(self._source["Conditions"][name])
            case {"Fn::Equals": [left, right]}:
                return bool(self.out(left) == self.out(right))
            case {"Fn::Not": [inner]}:
                return not self._condition(inner)
            case {"Fn::And": parts}:
                return all(map(self._condition, parts))
            case {"Fn::Or": parts}:
                return any(map(self._condition, parts))
            case _:
                raise ValueError(f"not a condition: {condition}")
