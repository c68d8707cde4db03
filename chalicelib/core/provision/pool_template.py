"""The work pool's base job template: ours merged into what is there.

Users edit their pools, and their edits survive; so does the template of a worker that created the
pool first. Ours are the defaults and lines without which a flow would not run in the stack, or not
be rescued well; these are restored.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

POOL_TYPE: Final = "ecs"
PUSH_TYPE: Final = "ecs:push"
"""Of a pool without a worker: Prefect Cloud starts its tasks. Its template is that of `ecs`, less
what only a worker does. `launch_type` is there too: its runs are moved by the same variable."""

Template = Mapping[str, Any]
Values = Mapping[str, str | Sequence[str]]
"""What the shipped template's placeholders stand for, by name; an empty one leaves no default."""


@dataclass(frozen=True, slots=True)
class WorkPool:
    """A work pool as Prefect returns it; what else it has is never changed."""

    name: str
    type: str
    base_job_template: Template


def wrong_type(kind: str, *, is_full: bool) -> tuple[str, str] | None:
    """Return why a pool of that type is not taken, and the next step; None where it is.

    `is_full`: as of the stage's PROVISION.
    """
    if kind == POOL_TYPE or (kind == PUSH_TYPE and not is_full):
        return None
    taken = POOL_TYPE if is_full else f"{POOL_TYPE} or {PUSH_TYPE}"
    next_step = f"create an {POOL_TYPE} pool, or set WORK_POOL to one"
    if kind == PUSH_TYPE:
        next_step += "; or set PROVISION to rescue-only, which takes push pools"
    return f"is of type {kind}, not {taken}", next_step


_VARIABLE: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_PLACEHOLDER: Final = re.compile(r"\$\{(\w+)\}")
_FLOW_CONTAINER: Final = "{{ container_name }}"

# Beside those with a placeholder in them. A strategy would win over the launch type, and so over
# the move to on-demand.
_ALSO_OURS: Final = {"launch_type", "capacity_provider_strategy", "configure_cloudwatch_logs"}
HEADERS: Final = "PREFECT_CLIENT_CUSTOM_HEADERS"
CERTIFICATES: Final = "PREFECT_SPOT_CA_CERTIFICATE"
_SECRETS: Final = {
    HEADERS: "CustomHeadersParameterArn",
    CERTIFICATES: "CaCertificateParameterArn",
}
_COMMAND: Final = "{{ command }}"
# Where no command is set, Prefect's template engine writes None, or nothing.
_WITH_CERTIFICATES: Final = (
    "sh -c '"
    f'if [ "${CERTIFICATES}" ]; then f=$(mktemp) && printf %s "${CERTIFICATES}" > "$f" &&'
    ' export PREFECT_API_SSL_CERT_FILE="$f"; fi;'
    ' [ "${1:-None}" != None ] || set -- prefect flow-run execute; exec "$@"'
    f"' sh {_COMMAND}"
)
_LEFT_TO_USERS: Final = ("name", "image", "environment", "memory")
_ARCHITECTURE: Final = "cpu_architecture"
"""Its default is ours; a platform that a user wrote into the task definition stays."""


def filled(shipped: Template, values: Values, launch_type: str) -> dict[str, Any]:
    """Return the shipped template for one stack; `launch_type` is what flows run on by default.

    Raises KeyError for a placeholder that `values` does not know.
    """
    template = copy.deepcopy(dict(shipped))
    properties = template["variables"]["properties"]
    for known in properties.values():
        if "default" in known:
            known["default"] = _fill(known["default"], values)
    properties["launch_type"]["default"] = launch_type
    return template


def merged(
    current: Template,
    shipped: Template,
    values: Values,
    launch_type: str,
    *,
    ends_runs: bool = True,
) -> Template:
    """Return `current` with all that is ours restored; an empty one becomes the shipped one.

    `ends_runs`: flows leave their state to us at SIGTERM (`Mode.ends_runs`); otherwise the
    environment by which they did is removed, and Prefect ends them as without us. Merging a merged
    template changes nothing. Raises KeyError as `filled` does, and ValueError, which says where
    `current` has another shape.
    """
    wanted = filled(shipped, values, launch_type)
    template: dict[str, Any] = copy.deepcopy(dict(current or wanted))
    ours = _ours(shipped)
    _set_defaults(template, wanted, ours)
    configuration = _object_in(template, "job_configuration")
    _restore_lines(configuration, wanted["job_configuration"], ours - {_ARCHITECTURE})
    _complete_container(configuration, wanted["job_configuration"], ends_runs=ends_runs)
    _give_access(template, wanted, values)
    return template


def _give_access(template: dict[str, Any], wanted: Template, values: Values) -> None:
    """Give flows the custom headers and the certificates that they reach Prefect by, or take them.

    As secrets of their container, which only ECS reads. A worker would pass on the headers that it
    was given itself in each task's overrides, and so in each event: a null in `env` keeps it from
    that. Prefect reads certificates from a file only: the command writes it.
    """
    configuration, properties = template["job_configuration"], template["variables"]["properties"]
    container = _flow_container(configuration["task_definition"]["containerDefinitions"])
    given = {name: str(values[of]) for name, of in _SECRETS.items() if values[of]}
    if given or isinstance(container.get("secrets"), list):  # else a variable of the users' own
        found, ours = _objects_in(container, "secrets"), tuple(_SECRETS)
        own = [each for each in found if each.get("name") not in ours]
        secrets = [*own, *({"name": name, "valueFrom": arn} for name, arn in given.items())]
        if secrets:
            container["secrets"] = secrets
        elif found:
            del container["secrets"]
    container["environment"] = [
        each for each in container["environment"] if each.get("name") not in tuple(given)
    ]
    if HEADERS in given:
        env = _object_in(properties, "env", wanted["variables"]["properties"]["env"])
        env["default"] = env.get("default") or {}
        env["default"] = {**_object_in(env, "default"), HEADERS: None}
    else:
        env = properties.get("env") or {}
        default = env.get("default") or {}
        if isinstance(default, dict) and default.get(HEADERS, "") is None:
            del default[HEADERS]
        if not default:
            env.pop("default", None)
    if CERTIFICATES in given:
        configuration["command"] = _WITH_CERTIFICATES
    elif configuration.get("command") == _WITH_CERTIFICATES:
        configuration["command"] = _COMMAND


def role_names(stack_name: str) -> dict[str, str]:
    """Return the names of the stack's roles for flows, by the outputs with their ARNs."""
    return {"FlowRoleArn": f"{stack_name}-flow", "ExecutionRoleArn": f"{stack_name}-execution"}


def strangers_roles(template: Template, stack_name: str) -> tuple[str, ...]:
    """Return the ARNs of the roles that the template gives flows, where none is the stack's own.

    Then the pool is another stack's or team's; empty where it is the stack's, or has none.
    """
    roles = roles_in(template)
    are_ours = {role.rpartition("/")[2] for role in roles} & set(role_names(stack_name).values())
    return () if are_ours else roles


def roles_in(template: Template) -> tuple[str, ...]:
    """Return the ARNs of the roles that the template gives flows."""
    variables = template.get("variables")
    properties = variables.get("properties") if isinstance(variables, Mapping) else None
    known = properties if isinstance(properties, Mapping) else {}
    given = (known.get(name) for name in ("task_role_arn", "execution_role_arn"))
    defaults = (each.get("default") for each in given if isinstance(each, Mapping))
    return tuple(str(role) for role in defaults if role)


def fixed_capacity(template: Template) -> Mapping[str, str]:
    """Return the fields of RunTask that the template sets itself, and what they should hold.

    While one of them is no placeholder, a run's job variables do not decide where its task runs: a
    move to FARGATE has no effect. Empty where they do; a field that is left out fixes nothing.
    """
    job = template.get("job_configuration")
    request = job.get("task_run_request") if isinstance(job, Mapping) else None
    given = request if isinstance(request, Mapping) else {}
    wanted = {"launchType": "launch_type", "capacityProviderStrategy": "capacity_provider_strategy"}
    return {
        field: f"{{{{ {variable} }}}}"
        for field, variable in wanted.items()
        if given.get(field) is not None and _variable_of(given[field]) != variable
    }


def architecture_of(template: Template, variables: Mapping[str, Any]) -> str:
    """Return the CPU architecture, x86_64 or arm64, of runs with all these job variables."""
    job = template.get("job_configuration")
    task = job.get("task_definition") if isinstance(job, Mapping) else None
    platform = task.get("runtimePlatform") if isinstance(task, Mapping) else None
    line = platform.get("cpuArchitecture") if isinstance(platform, Mapping) else None
    variable = _variable_of(line)
    return str((variables.get(variable) if variable else line) or "X86_64").lower()


def _variable_of(line: object) -> str:
    """The variable that a line stands for; empty for any other line."""
    found = _VARIABLE.fullmatch(line) if isinstance(line, str) else None
    return found[1] if found else ""


def _fill(value: Any, values: Values) -> Any:
    if isinstance(value, Mapping):
        return {key: _fill(below, values) for key, below in value.items()}
    found = _PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    meant = values[found[1]]
    return (meant or None) if isinstance(meant, str) else list(meant)


def _ours(shipped: Template) -> set[str]:
    """The variables whose defaults are ours."""
    properties = shipped["variables"]["properties"]
    return _ALSO_OURS | {
        name for name, known in properties.items() if _PLACEHOLDER.search(str(known.get("default")))
    }


def _set_defaults(template: dict[str, Any], wanted: Template, ours: set[str]) -> None:
    variables = _object_in(template, "variables")
    properties = _object_in(variables, "properties")
    for name, shipped in wanted["variables"]["properties"].items():
        if name in ours:
            _set_default(_object_in(properties, name, otherwise=shipped), shipped)
        elif name in properties:
            known = _object_in(properties, name)
            if known.get("default") is None and "default" in shipped:
                known["default"] = copy.deepcopy(shipped["default"])
    definitions = _object_in(variables, "definitions")
    for name, definition in wanted["variables"].get("definitions", {}).items():
        definitions.setdefault(name, copy.deepcopy(definition))


def _set_default(known: dict[str, Any], wanted: Mapping[str, Any]) -> None:
    present = known.pop("default", None)
    if "default" in wanted:
        default = copy.deepcopy(wanted["default"])
        are_objects = isinstance(default, dict) and isinstance(present, dict)
        known["default"] = {**present, **default} if are_objects else default


def _restore_lines(current: dict[str, Any], wanted: Template, ours: set[str]) -> None:
    """Restore the lines that use a variable of ours."""
    for key, line in wanted.items():
        below = current.get(key)
        if isinstance(line, Mapping) and isinstance(below, dict):
            _restore_lines(below, line, ours)
        elif _uses(line, ours):
            current[key] = copy.deepcopy(line)


def _uses(line: object, ours: set[str]) -> bool:
    if isinstance(line, Mapping):
        return any(_uses(below, ours) for below in line.values())
    return _variable_of(line) in ours


def _complete_container(
    configuration: dict[str, Any], wanted: Template, *, ends_runs: bool
) -> None:
    """Give the flow's container its stop timeout, its environment, and memory if it has none.

    And its task a platform, if that has none.
    """
    definition = _object_in(configuration, "task_definition")
    if not definition.get("runtimePlatform"):
        platform = wanted["task_definition"]["runtimePlatform"]
        definition["runtimePlatform"] = copy.deepcopy(platform)
    ours = _flow_container(wanted["task_definition"]["containerDefinitions"])
    containers = _objects_in(definition, "containerDefinitions") or [copy.deepcopy(ours)]
    definition["containerDefinitions"] = containers
    container = _flow_container(containers)
    for name, value in ours.items():
        if name not in _LEFT_TO_USERS:
            container[name] = copy.deepcopy(value)
    if "memoryReservation" not in container:
        container.setdefault("memory", ours["memory"])
    environment = _objects_in(container, "environment")
    for entry in ours["environment"]:
        if not ends_runs:
            environment = [e for e in environment if e != entry]
        elif entry not in environment:
            others = [e for e in environment if e.get("name") != entry["name"]]
            environment = [*others, dict(entry)]
    container["environment"] = environment


def _object_in(parent: dict[str, Any], key: str, otherwise: Template = MappingProxyType({})) -> Any:
    """The object under that key, added where there is none."""
    value = parent.setdefault(key, copy.deepcopy(dict(otherwise)))
    if not isinstance(value, dict):
        raise ValueError(f"{key} is no object")
    return value


def _objects_in(parent: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The list under that key; an empty one where there is none."""
    value = parent.get(key) or []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise ValueError(f"{key} is no list of objects")
    return value


def _flow_container(containers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return next((c for c in containers if c.get("name") == _FLOW_CONTAINER), containers[0])
