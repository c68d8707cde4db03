"""Writes the IAM policies of a stage, by default the default one's: `.chalice/policy-*-dev.json`.

    python -m tools.policies [STAGE]

Their source is `spotctl/policies/`. `spotctl deploy` writes those of any stage; the default stage's
are committed, so that `chalice deploy` alone works in a clean clone.
"""

import sys
from pathlib import Path

from spotctl.policies import write_policies
from spotctl.project import read_project

if __name__ == "__main__":
    stage = sys.argv[1] if len(sys.argv) > 1 else "dev"
    write_policies(read_project(Path(__file__).resolve().parent.parent, stage))
