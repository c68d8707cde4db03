"""`python -m spotctl`."""

from spotctl.cli import app

app(prog_name="spotctl")
