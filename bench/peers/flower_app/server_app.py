"""Flower's FedAvg with its defaults, all agents in every round, and a note when a round has ended."""

from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from bench.peers.payload import note_round, zeros

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator] # Flower's, whose types are not here
def main(grid: Grid, context: Context) -> None:
    """Run the rounds."""
    agents, dim, rounds = (int(context.run_config[name]) for name in ("agents", "dim", "rounds"))

    def ended(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        if number:  # the strategy asks before the first round too
            note_round(number, {name: array.numpy() for name, array in arrays.items()} if number == rounds else None)
        return None

    FedAvg(fraction_evaluate=0.0, min_train_nodes=agents, min_available_nodes=agents).start(
        grid=grid,
        initial_arrays=ArrayRecord({name: Array(values) for name, values in zeros(dim).items()}),
        num_rounds=rounds,
        evaluate_fn=ended,
    )
