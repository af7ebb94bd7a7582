"""Whether one method is better than another: paired over the same test items (functions of arrays alone).

Legend: S models of a method (seeds, and for Standalone clients too), N items. Arrays hold 1 where an answer is right.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

DRAWS = 10_000


@dataclass(frozen=True)
class Difference:
    """How much higher one mean accuracy is than another, in points of a per cent.

    low, high: its 95 % interval over items. largest_p: of McNemar's tests of the pairs of models, the p of the one that
    says least.
    """

    points: float
    low: float
    high: float
    largest_p: float


def paired_bootstrap(ours_SN: NDArray[np.int8], other_SN: NDArray[np.int8], *, seed: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of the difference of mean accuracies, in points.

    Items are drawn, each with all that any model answered to it (Efron and Tibshirani, 1993, chapter 13): the
    models of both methods are taken as they are, and what another seed would give shows in the spread between seeds.
    """
    difference_N = 100 * (ours_SN.mean(axis=0) - other_SN.mean(axis=0))
    generator = np.random.default_rng(seed)
    count = difference_N.size
    means = [difference_N[generator.integers(0, count, count)].mean() for _ in range(DRAWS)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def mcnemar(ours_N: NDArray[np.int8], other_N: NDArray[np.int8]) -> float:
    """Return the exact two-sided p that two models answer equally well (McNemar, 1947; binomial on the unequal)."""
    better = int(((ours_N == 1) & (other_N == 0)).sum())
    worse = int(((ours_N == 0) & (other_N == 1)).sum())
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def difference(ours_SN: NDArray[np.int8], other_SN: NDArray[np.int8], *, seed: int = 0) -> Difference:
    """Compare two methods; models in the same row (one seed) are a pair, and one row stands for every seed."""
    low, high = paired_bootstrap(ours_SN, other_SN, seed=seed)
    rows = max(len(ours_SN), len(other_SN))
    pairs = zip(_repeated(ours_SN, rows), _repeated(other_SN, rows), strict=True)
    return Difference(
        points=float(100 * (ours_SN.mean() - other_SN.mean())),
        low=low,
        high=high,
        largest_p=max(mcnemar(ours_N, other_N) for ours_N, other_N in pairs),
    )


def _repeated(models_SN: NDArray[np.int8], rows: int) -> NDArray[np.int8]:
    """Pair what there are fewer of with each of the others: one FedCoLLM model with each client's own."""
    return np.repeat(models_SN, rows // len(models_SN), axis=0)
