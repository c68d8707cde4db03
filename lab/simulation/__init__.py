"""Which setting is mine? A discrete-event simulation of flow runs on Fargate Spot.

    make simulate [RUNS=N] [SEED=N]                       or: python -m lab.simulation --help

Runs, tasks and Spot's interruptions are drawn; what becomes of an interrupted run the product
decides itself, by the snapshots that `react` would gather. Read in this order: `sky` (when Spot
interrupts), `work` (what a run does, and costs), `memory` (what the guards know), `play` (one run
from start to end), `grid` (all of it, many times), then `figures`.
"""
