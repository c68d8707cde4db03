"""Measurements of the product: the benchmark and the simulation. Never in the zip."""
