"""`spotctl`, the operator's command; its commands are in `cli.py`, their frame in `app.py`.

Runs on the operator's machine with their credentials; never in the Lambda zip. A command reads
what there is, judges it in pure functions, and prints rows, a table or JSON (`output.py`).
"""
