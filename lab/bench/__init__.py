"""`make bench`: prefect-spot measured against prefect-aws's observer, its own floor, and itself.

Each part is a module, see `lab/bench/part.py`. What is measured is what `chalice deploy` made.
"""
