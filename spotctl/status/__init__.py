"""`spotctl status`: every part, its state, and what to do about it.

One file per group of parts. In each, `look` asks AWS or Prefect and returns what it found as
values, and `rows` judges them: no I/O, so that every judgement has its test.
"""
