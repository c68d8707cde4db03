"""A ratio of means, and how sure it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist, fmean
from typing import Final

Z_97: Final = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Return mean over mean, a pair for each pool.

    Raises ZeroDivisionError: the denominators are zero together, or there are fewer than two pools.
    """
    below = fmean(denominators)
    value = fmean(numerators) / below
    residuals = [one - value * two for one, two in zip(numerators, denominators, strict=True)]
    n = len(residuals)
    error = sqrt(sum(r * r for r in residuals) / (n - 1) / n) / abs(below)
    half = student(n - 1) * error
    return Estimate(value, value - half, value + half)


def student(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t, by its expansion in 1/degrees.

    Abramowitz and Stegun 26.7.5; with five degrees and more it is right to a hundredth.
    """
    z = Z_97
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / float(degrees) ** power for power, term in enumerate(terms, start=1))
