"""`spotctl`, the operator's command: deploy, status, drill, report, replay, redrive, teardown.

Runs on the operator's machine with their credentials; never in the Lambda zip. A command reads
what there is, judges it in pure functions, and prints rows, a table or JSON (`output.py`).
"""
