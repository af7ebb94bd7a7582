"""Flower's SecAgg+, timed in one process: for a Python that has flwr and numpy, and neither FedCoLLM nor its own.

Its workflow runs as it is, over a grid that hands each message to Flower's own client modifier and measures how long
that takes; what the workflow takes beside is the coordinator's. It prints JSON.
"""

import argparse
import json
import logging
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
from flwr.common import Code, FitRes, Parameters, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.compat.common import recorddict_compat
from flwr.server.client_manager import SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.server.workflow.secure_aggregation import SecAggPlusWorkflow
from flwr.supercore.task_identity import TaskIdentity

EXAMPLES = 1000
"""What each update weighs: the workflow's own ``max_weight``, at which Flower is most exact."""


def clocks() -> npt.NDArray[np.float64]:
    """Return the time, in seconds, and this process's seconds of a processor."""
    return np.array([time.perf_counter(), time.process_time()])


class Party(ClientProxy):  # type: ignore[misc] # flwr is not here when types are checked
    """A client as the strategy samples it; the grid answers for it."""

    def __init__(self, number: int) -> None:
        super().__init__(str(number))
        self.node_id = number

    def _unused(self, *_: object, **__: object) -> None:
        raise NotImplementedError

    get_properties = get_parameters = fit = evaluate = reconnect = _unused


class Grid:
    """Hands messages to the clients one after the other, and keeps the time."""

    def __init__(self, updates: dict[int, Parameters], lost: frozenset[int]) -> None:
        self._updates = updates
        self._lost = lost
        self._contexts = {
            number: Context(run_id=1, node_id=number, node_config={}, state=RecordDict(), run_config={})
            for number in updates
        }
        self.clients: dict[int, Any] = defaultdict(lambda: np.zeros(2))
        self.masked_bytes: list[int] = []
        self.all = np.zeros(2)

    def send_and_receive(self, messages: Iterable[Message], timeout: float | None = None) -> list[Message]:  # noqa: ARG002
        """Return each client's answer; those who are lost fall silent at the stage of the masked vectors."""
        began = clocks()
        answers = [self._answer(message) for message in messages]
        self.all += clocks() - began
        return answers

    def _answer(self, message: Message) -> Message:
        number = message.metadata.dst_node_id
        configs = ConfigRecord(dict(message.content.config_records[RECORD_KEY_CONFIGS]))  # the modifier takes from it
        content = RecordDict(dict(message.content.items()) | {RECORD_KEY_CONFIGS: configs})
        received = Message(content, dst_node_id=number, message_type=message.metadata.message_type)
        stage = configs[Key.STAGE]
        if stage == Stage.COLLECT_MASKED_VECTORS and number in self._lost:
            return Message(Error(code=1, reason="lost"), reply_to=received)
        began = clocks()
        answer = secaggplus_mod(received, self._contexts[number], self._train)
        self.clients[number] += clocks() - began
        masked = answer.content.config_records[RECORD_KEY_CONFIGS].get(Key.MASKED_PARAMETERS, [])
        if masked:
            self.masked_bytes.append(sum(map(len, masked)))
        return answer

    def _train(self, message: Message, context: Context) -> Message:
        result = FitRes(Status(Code.OK, ""), self._updates[context.node_id], EXAMPLES, {})
        return Message(recorddict_compat.fitres_to_recorddict(result, keep_input=True), reply_to=message)


def run(parties: int, parameters: int, lost: int) -> dict[str, Any]:
    """Run one aggregation and return what it took."""
    random = np.random.default_rng(1)
    vectors = {number: random.normal(0, 0.1, parameters).astype(np.float32) for number in range(1, parties + 1)}
    silent = frozenset(range(1, lost + 1))
    grid = Grid({number: ndarrays_to_parameters([vector]) for number, vector in vectors.items()}, silent)
    manager = SimpleClientManager()
    for number in vectors:
        manager.register(Party(number))
    context = LegacyContext(
        Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={}),
        strategy=FedAvg(fraction_fit=1.0, min_fit_clients=parties, min_available_clients=parties),
        client_manager=manager,
    )
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    zeros = ndarrays_to_parameters([np.zeros(parameters, dtype=np.float32)])
    context.state.array_records[MAIN_PARAMS_RECORD] = recorddict_compat.parameters_to_arrayrecord(zeros, True)  # noqa: FBT003
    began = clocks()
    SecAggPlusWorkflow(num_shares=1.0, reconstruction_threshold=2 * parties // 3 + 1)(grid, context)
    taken = clocks() - began
    mean = _result(context)
    expected = np.mean([vectors[number] for number in vectors.keys() - silent], axis=0, dtype=np.float64)
    return {
        "flwr": version("flwr"),
        "agent": np.median([grid.clients[number] for number in vectors.keys() - silent], axis=0).tolist(),
        "coordinator": (taken - grid.all).tolist(),
        "masked_bytes": max(grid.masked_bytes),
        "error": float(np.abs(mean - expected).max()),
    }


def _result(context: LegacyContext) -> npt.NDArray[np.float32]:
    record = context.state.array_records[MAIN_PARAMS_RECORD]
    arrays = parameters_to_ndarrays(recorddict_compat.arrayrecord_to_parameters(record, True))  # noqa: FBT003
    result: npt.NDArray[np.float32] = arrays[0]
    if not result.any():
        raise RuntimeError("Flower's workflow has given no aggregate")
    return result


def main() -> None:
    """Run, and print what it took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("parties", "parameters", "lost"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
    print(json.dumps(run(options.parties, options.parameters, options.lost)))


if __name__ == "__main__":
    main()
