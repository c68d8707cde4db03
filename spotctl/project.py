"""The deployment that a command works on: a stage's settings, from `.chalice/config.json`.

The Lambdas get theirs from the same file and through the same checks.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from chalicelib.errors import SettingError
from chalicelib.settings import Settings, read_settings

CONFIG: Final = Path(".chalice") / "config.json"
CHECKOUT: Final = Path(__file__).resolve().parent.parent
"""The checkout that this `spotctl` is of."""

DEMO: Final = "SPOTCTL_DEMO"
"""The variable that `build/demo.env` sets: the kept demo's folder, which goes with the demo."""


@dataclass(frozen=True, slots=True)
class Project:
    """One stage of one checkout. `functions` are the Lambdas' short names (`react`, …);
    `in_vpc`: those of them that Chalice puts into a VPC.
    """

    folder: Path
    stage: str
    app_name: str
    functions: tuple[str, ...]
    settings: Settings
    in_vpc: frozenset[str] = frozenset()

    @property
    def is_rescue_only(self) -> bool:
        """Whether cluster, worker and work pool are the user's, not the stack's."""
        return not self.settings.is_full

    @property
    def stack(self) -> str:
        """Name of the CloudFormation stack, and of the table in it."""
        return self.settings.stack_name

    @property
    def failure_queue(self) -> str:
        """Name of the queue with the events that no function could handle."""
        return f"{self.stack}-failures"

    def function_name(self, function: str) -> str:
        """Return the name that Chalice gives a function in Lambda."""
        return f"{self.app_name}-{self.stage}-{function}"


def folder_of(given: Path | None) -> Path:
    """Return the given folder; otherwise the current one, if it has a config; else the checkout."""
    return given or (Path() if CONFIG.exists() else CHECKOUT)


def read_config(folder: Path) -> dict[str, Any]:
    """Read Chalice's config.

    Raises SettingError: there is none, it has not its form, or the shell's demo has ended.
    """
    if (demo := os.environ.get(DEMO)) and not Path(demo).exists():
        raise SettingError(
            "the demo that this shell works on has ended",
            next_step="open a new shell; make demo KEEP=1 starts another demo",
        )
    path = folder / CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise SettingError(
            f"there is no {path}",
            next_step="run spotctl in the project's folder, or pass --project-dir",
        ) from None
    except ValueError as error:
        raise SettingError(f"{path} is not valid JSON ({error})", next_step="fix it") from None
    if odd := _odd_part("it", config):
        raise SettingError(f"{path}: {odd} is not a JSON object", next_step="fix it")
    return config


def _odd_part(name: str, value: Any) -> str:
    """Return the name of the first part that has to be an object and is not; empty for none."""
    if not isinstance(value, dict):
        return name
    parts = ("stages", "lambda_functions", "environment_variables")
    named = (part for part in value.items() if part[0] in parts or name in parts[:2])
    return next(filter(None, (_odd_part(*part) for part in named)), "")


def read_project(
    folder: Path, stage: str, changes: Mapping[str, str] = MappingProxyType({})
) -> Project:
    """Read the stage's settings; `changes` override those of the file.

    Raises SettingError: no such file or stage, or a setting is wrong.
    """
    return project_of(read_config(folder), folder, stage, changes)


def project_of(
    config: Mapping[str, Any],
    folder: Path,
    stage: str,
    changes: Mapping[str, str] = MappingProxyType({}),
) -> Project:
    """Return the stage of a config. Raises SettingError: no such stage, or a setting is wrong."""
    stages: dict[str, Any] = config.get("stages", {})
    if stage not in stages:
        known = ", ".join(sorted(stages)) or "none"
        raise SettingError(
            f"stage {stage!r} is not in {folder / CONFIG}: known are {known}",
            next_step="add the stage there, or pass --stage",
        )
    environment = {
        "STAGE": stage,
        **config.get("environment_variables", {}),
        **stages[stage].get("environment_variables", {}),
        **changes,
    }
    for name, value in environment.items():
        if not isinstance(value, str):
            step = f"write it in quotes in {folder / CONFIG}"
            raise SettingError(f"{name} is {value!r}, which is no text", next_step=step)
    functions: dict[str, dict[str, Any]] = stages[stage].get("lambda_functions", {})
    of_all = {**config, **stages[stage]}
    return Project(
        folder=folder,
        stage=stage,
        app_name=str(config.get("app_name", "prefect-spot")),
        functions=tuple(functions),
        settings=read_settings(environment),
        in_vpc=frozenset(n for n, own in functions.items() if {**of_all, **own}.get("subnet_ids")),
    )
