"""The names of a template while a stack is created: what a resource refers to is made first.

moto's reader of templates resolves conditions and functions; it asks here for what they name.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from moto.cloudformation.parsing import LazyDict, clean_json, parse_condition

from localcloud.cloudformation.resources import Made, ResourceError

Provide = Callable[[str, str, dict[str, Any]], Made]
"""Makes a resource, or finds it made, from its logical id, type and properties."""

_ATTRIBUTES = {"Type", "Properties", "Condition", "DeletionPolicy", "UpdateReplacePolicy"}
"""Of a resource; the policies have no effect here, as only a replacement keeps data."""


class Scope(dict[str, Any]):
    """Parameters and pseudo parameters by name, and every resource once it is asked for."""

    def __init__(self, template: dict[str, Any], known: dict[str, str], provide: Provide) -> None:
        super().__init__(known)
        self["AWS::NoValue"] = None
        self._template = template
        self._provide = provide
        self._made: dict[str, Made] = {}
        reader: Any = self  # all that moto does with it is to look names up
        self.lazy_condition_map = LazyDict()
        for name, condition in template.get("Conditions", {}).items():
            self.lazy_condition_map[name] = partial(
                parse_condition, condition, reader, self.lazy_condition_map
            )

    def __missing__(self, name: str) -> Made:
        resource = self._template["Resources"][name]
        if not self._holds(resource):
            raise ResourceError(f"Unresolved resource dependencies [{name}]")
        if unknown := ", ".join(resource.keys() - _ATTRIBUTES):
            raise ResourceError(f"{unknown}: not emulated")
        properties = self._resolved(resource.get("Properties", {}))
        made = self._made[name] = self[name] = self._provide(name, resource["Type"], properties)
        return made

    def get(self, name: str, _default: Any = None) -> Any:
        """As `[]`: moto's reader asks this way for what Fn::GetAtt names."""
        return self[name]

    def provide_all(self) -> dict[str, Made]:
        """Have every resource made whose condition holds; return them in the order of making."""
        for name, resource in self._template["Resources"].items():
            if self._holds(resource):
                self[name]
        return dict(self._made)

    def outputs(self) -> dict[str, str]:
        """Return the outputs whose condition holds."""
        return {
            name: str(self._resolved(output["Value"]))
            for name, output in self._template.get("Outputs", {}).items()
            if self._holds(output)
        }

    def _resolved(self, value: Any) -> Any:
        return _without_nothing(clean_json(value, self))  # type: ignore[arg-type]  # moto wants its own class

    def _holds(self, part: dict[str, Any]) -> bool:
        return "Condition" not in part or bool(self.lazy_condition_map[part["Condition"]])


def _without_nothing(value: Any) -> Any:
    """Strip them: moto leaves AWS::NoValue in lists, as None."""
    match value:
        case dict():
            return {name: _without_nothing(inner) for name, inner in value.items()}
        case list():
            return [_without_nothing(inner) for inner in value if inner is not None]
        case _:
            return value
