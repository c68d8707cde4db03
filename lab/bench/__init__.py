"""`make bench`: prefect-spot measured against observer, automation, and its own floor.

Each part is a module, see `lab/bench/part.py`. What is measured is what `chalice deploy` made.
"""
