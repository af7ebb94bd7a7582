"""Whether one method is better than another: paired over the same test items (functions of arrays alone).

Legend: S models of a method (seeds, and for Standalone clients too), N items. Arrays hold 1 where an answer is right.
"""

import statistics
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from scipy.stats import t as student

DRAWS = 10_000


@dataclass(frozen=True)
class Difference:
    """How much higher one mean accuracy is than another, in points of a per cent.

    over_items: its 95 % interval: what other questions of this kind would give with these models. over_seeds: what
    other seeds would give on these questions; None for one seed. median_p: of McNemar's tests of the pairs of models.
    """

    points: float
    over_items: tuple[float, float]
    over_seeds: tuple[float, float] | None
    median_p: float

    @property
    def is_clear(self) -> bool:
        """Whether neither interval has 0 in it."""
        intervals = [self.over_items] if self.over_seeds is None else [self.over_items, self.over_seeds]
        return all(low > 0 or high < 0 for low, high in intervals)


def paired_bootstrap(ours_SN: NDArray[np.int8], other_SN: NDArray[np.int8], *, seed: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of the difference of mean accuracies, in points.

    Items are drawn, each with all that any model answered to it (Efron and Tibshirani, 1993, chapter 13): the
    models of both methods are taken as they are.
    """
    difference_N = 100 * (ours_SN.mean(axis=0) - other_SN.mean(axis=0))
    generator = np.random.default_rng(seed)
    count = difference_N.size
    means = [difference_N[generator.integers(0, count, count)].mean() for _ in range(DRAWS)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def interval_over_seeds(differences_S: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of the seeds' differences, by Student's t: seeds are few."""
    count = differences_S.size
    half = float(student.ppf(0.975, count - 1) * differences_S.std(ddof=1) / count**0.5)
    return float(differences_S.mean()) - half, float(differences_S.mean()) + half


def mcnemar(ours_N: NDArray[np.int8], other_N: NDArray[np.int8]) -> float:
    """Return the exact two-sided p that two models answer equally well (McNemar, 1947; binomial on the unequal)."""
    better = int(((ours_N == 1) & (other_N == 0)).sum())
    worse = int(((ours_N == 0) & (other_N == 1)).sum())
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def difference(ours_SN: NDArray[np.int8], other_SN: NDArray[np.int8], *, seed: int = 0) -> Difference:
    """Compare two methods; models in the same row (one seed) are a pair, and one row stands for every seed."""
    rows = max(len(ours_SN), len(other_SN))
    paired_ours_SN, paired_other_SN = _repeated(ours_SN, rows), _repeated(other_SN, rows)
    by_pair_S = 100 * (paired_ours_SN.mean(axis=1) - paired_other_SN.mean(axis=1))
    by_seed_S = by_pair_S.reshape(len(ours_SN), -1).mean(axis=1)
    return Difference(
        points=float(by_seed_S.mean()),
        over_items=paired_bootstrap(ours_SN, other_SN, seed=seed),
        over_seeds=interval_over_seeds(by_seed_S) if len(by_seed_S) > 1 else None,
        median_p=statistics.median(map(mcnemar, paired_ours_SN, paired_other_SN)),
    )


def _repeated(models_SN: NDArray[np.int8], rows: int) -> NDArray[np.int8]:
    """Pair what there are fewer of with each of the others: one FedCoLLM model with each client's own."""
    return np.repeat(models_SN, rows // len(models_SN), axis=0)
