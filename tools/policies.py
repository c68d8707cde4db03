"""Writes the IAM policies of the default stage, `.chalice/policy-*-dev.json`.

    python -m tools.policies

Their source is `spotctl/policies/`. `spotctl deploy` writes those of any stage; the default stage's
are committed, so that `chalice deploy` alone works in a clean clone.
"""

from pathlib import Path

from spotctl.policies import write_policies
from spotctl.project import read_project

if __name__ == "__main__":
    write_policies(read_project(Path(__file__).resolve().parent.parent, "dev"))
