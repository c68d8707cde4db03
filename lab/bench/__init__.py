"""`make bench`: prefect-spot measured against prefect-aws's observer, its own floor, and itself.

Each part is a module with the functions of `lab.bench.part.Part`. Never imported by the product, never
in the zip; measured is what `chalice deploy` made.
"""
