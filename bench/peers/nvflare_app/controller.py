"""FLARE's FedAvg with its defaults, and a note when a round has ended."""

from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.fedavg import FedAvg

from bench.peers.payload import note_round, zeros


class NotingFedAvg(FedAvg):  # type: ignore[misc] # FLARE's, whose types are not here
    """FedAvg on an adapter of this width; the exporter of jobs writes down arguments that are named here alone.

    With ``persistor_id`` "" no model is saved.
    """

    def __init__(self, num_clients: int, num_rounds: int, dim: int, persistor_id: str) -> None:
        super().__init__(persistor_id=persistor_id, num_clients=num_clients, num_rounds=num_rounds)
        self.num_clients = num_clients
        self.num_rounds = num_rounds
        self.dim = dim
        self.persistor_id = persistor_id

    def load_model(self) -> FLModel:
        """Return what the first round begins with."""
        return FLModel(params=zeros(self.dim))

    def save_model(self, model: FLModel) -> None:
        """Save the model if that was asked for, and note the round, which FLARE counts from 0."""
        if self.persistor_id:
            super().save_model(model)
        number = self.current_round + 1
        note_round(number, model.params if number == self.num_rounds else None)
