"""How many adapters a second Flower's FedAvg aggregates: ``python -m bench.peers.flower_app.aggregate DIM COHORT``."""

from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from bench.peers.payload import Tensors, print_rates


def record(tensors: Tensors) -> RecordDict:
    """Return a reply's content, as a client makes it."""
    arrays = ArrayRecord({name: Array(values) for name, values in tensors.items()})
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 100})})


if __name__ == "__main__":
    print_rates(record, lambda records: aggregate_arrayrecords(records, "num-examples"))
