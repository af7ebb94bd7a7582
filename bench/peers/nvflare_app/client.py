"""A client that adds noise, or trains the small model: ``client.py STEPS``."""

import sys

import nvflare.client as flare

from bench.peers.payload import noisy, update_seed


def main() -> None:
    """Answer every round, with an update that depends on round and client, and on the adapter."""
    steps = int(sys.argv[1])
    flare.init()
    client = int(flare.get_site_name().rpartition("-")[2]) - 1
    while flare.is_running():
        model = flare.receive()
        if model is None:
            return
        seed = update_seed(model.current_round + 1, client)
        if steps:
            from bench.peers.lora import trained  # noqa: PLC0415 - PyTorch, where it is used

            update = trained(model.params, seed, steps)
        else:
            update = noisy(model.params, seed)
        flare.send(
            flare.FLModel(params=update, params_type=flare.ParamsType.FULL, meta={"NUM_STEPS_CURRENT_ROUND": 100})
        )


if __name__ == "__main__":
    main()
