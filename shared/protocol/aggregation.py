"""The server's mean of the clients' adapters (Alg. 1, "SecureAvg" line; docs/protocol.md step 6).

    theta^{t,0} = (1/K) sum_k theta_k           the paper's, and the default
    theta^{t,0} = sum_k n_k theta_k / sum_k n_k where the run's manifest weights by examples

The mean is taken over the factors A and B, as in the paper; it is a running sum, so memory does not grow with K.
"""

import numpy as np

from shared.protocol.tensors import Array, require_finite


class RunningMean:
    """A mean of flat adapters that are added one after the other.

    The order of adding decides the last bits: callers add in the order of the agents' names, so that the same
    updates give the same bytes.
    """

    def __init__(self, parameters: int) -> None:
        """Begin with nothing added; ``parameters`` is the length of every adapter to come."""
        self._sum: Array = np.zeros(parameters, dtype=np.float32)
        self._weight = 0

    def add(self, adapter: Array, weight: int = 1) -> None:
        """Add one adapter, shape [parameters], with its weight: 1, or its number of examples."""
        with np.errstate(over="ignore", invalid="ignore"):  # ``result`` looks
            if weight == 1:
                np.add(self._sum, adapter, out=self._sum)
            else:
                np.add(self._sum, adapter * np.float32(weight), out=self._sum)
        self._weight += weight

    def result(self) -> Array:
        """Return the mean of what was added, shape [parameters].

        Raises:
            ValuesNotFinite: finite adapters overflowed in their sum.
        """
        mean: Array = self._sum / np.float32(self._weight)
        require_finite(mean, "the aggregate")
        return mean
