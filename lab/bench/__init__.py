"""`make bench`: prefect-spot measured against prefect-aws's observer, with an automation too, and its floor.

Each part is a module, see `lab/bench/part.py`. What is measured is what `chalice deploy` made.
"""
