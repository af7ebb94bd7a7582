"""A client that adds noise, or trains the small model."""

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from bench.peers.payload import noisy, update_seed

app = ClientApp()


@app.train()  # type: ignore[untyped-decorator] # Flower's, whose types are not here
def train(message: Message, context: Context) -> Message:
    """Return an update that depends on round and client, and on the adapter."""
    seed = update_seed(int(message.content["config"]["server-round"]), int(context.node_config["partition-id"]))
    tensors = {name: array.numpy() for name, array in message.content["arrays"].items()}
    if steps := int(context.run_config["steps"]):
        from bench.peers.lora import trained  # noqa: PLC0415 - PyTorch, where it is used

        update = trained(tensors, seed, steps)
    else:
        update = noisy(tensors, seed)
    arrays = ArrayRecord({name: Array(values) for name, values in update.items()})
    return Message(
        content=RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 100})}), reply_to=message
    )
