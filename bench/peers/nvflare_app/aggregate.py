"""How many adapters a second FLARE's FedAvg aggregates: ``python -m bench.peers.nvflare_app.aggregate DIM COHORT``."""

from collections.abc import Sequence

from nvflare.app_common.aggregators.weighted_aggregation_helper import WeightedAggregationHelper

from bench.peers.payload import Tensors, print_rates


def aggregate(updates: Sequence[Tensors]) -> None:
    """Add up what came from clients."""
    helper = WeightedAggregationHelper()
    for number, update in enumerate(updates):
        helper.add(update, 100.0, f"site-{number}", 0)
    helper.get_result()


if __name__ == "__main__":
    print_rates(lambda tensors: tensors, aggregate)
