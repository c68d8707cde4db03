"""Which setting is mine? A discrete-event simulation of flow runs on Fargate Spot.

    make simulate [RUNS=N] [SEED=N] [TRACE=file]          or: python -m simulation --help

Runs, tasks and a Spot market are played; what becomes of an interrupted run is asked of the
product's own `decide`, with the situations that `react` would gather. Read in this order: `sky`
(when Spot takes and refuses), `work` (what a run does, and costs), `product` (the run as Prefect
and the record have it, answered by `decide`), `play` (the events of a pool), `foresight` (what
needs no decision, and what knows the future), `grid` (all of it, many times), `figures` (what it
comes to), then `tables` and `chart`. `doctools/guards_page.py` writes the page from the figures.

Never imported by the product, and never in the Lambda zip.
"""
