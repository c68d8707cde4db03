"""`spotctl init`: writes a stage into `.chalice/config.json`, beside those that are there."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from chalicelib.errors import SettingError
from chalicelib.settings import ROWS
from spotctl.errors import RefusedError
from spotctl.project import CONFIG, project_of, read_config

BEFORE_A_RESCUE: Final = "observe"
"""The mode of a new stage: it changes no run."""


def init(folder: Path, stage: str, given: Sequence[str]) -> None:
    """Write the stage with these settings, each NAME=VALUE.

    Raises SettingError: a setting is wrong, or there is no first stage; RefusedError: the stage is
    there already, or a setting is not of that form. Nothing is written then.
    """
    config = read_config(folder)
    stages: dict[str, Any] = config.setdefault("stages", {})
    if stage in stages:
        raise RefusedError(
            f"stage {stage!r} is in {folder / CONFIG} already",
            next_step=f"edit it there, then run spotctl plan --stage {stage}",
        )
    first: dict[str, Any] = next(iter(stages.values()), {})
    functions: dict[str, dict[str, Any]] = first.get("lambda_functions", {})
    if not functions:
        raise SettingError(
            f"{folder / CONFIG} has no stage with lambda_functions to begin with",
            next_step="restore it from the repository",
        )
    pairs = [each.partition("=") for each in given]
    if odd := next((name for name, equals, _ in pairs if not (name and equals)), None):
        raise RefusedError(f"--set {odd!r} is not NAME=VALUE", next_step="see docs/settings.md")
    settings = {name: value for name, _, value in pairs}
    if unknown := settings.keys() - {row.name for row in ROWS.values()}:
        names = ", ".join(sorted(unknown))
        raise RefusedError(f"there is no setting {names}", next_step="see docs/settings.md")
    stages[stage] = {
        **first,
        "lambda_functions": {
            name: {**own, "iam_policy_file": f"policy-{name}-{stage}.json"}
            for name, own in functions.items()
        },
        "environment_variables": {
            "STAGE": stage,
            "MODE": BEFORE_A_RESCUE,
            **({"PROVISION": "rescue-only"} if settings.get("ECS_CLUSTER") else {}),
            **settings,
        },
    }
    project_of(config, folder, stage)  # raises, where a setting is wrong
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
