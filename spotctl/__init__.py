"""`spotctl`, the operator's command: deploy, status, drill, report, redrive, teardown.

Runs on the operator's machine with their credentials; never part of the Lambda zip. Each command
gathers what is, builds rows from it in a pure function, and hands them to `render.py`.
"""
