"""Base models too large for one device: their frozen weights spread over the processes of a group (FSDP2).

LoRA weights, their gradients and the optimiser are small, and whole in each process: all that tunes, writes and loads
adapters need not know.
"""

import torch
from peft import PeftModel
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from shared.ml.process_group import ProcessGroup


def shard(model: PeftModel, *, group: ProcessGroup, device: torch.device) -> None:
    """Leave each process its part of the base model's weights, which are put together again layer by layer.

    From then on all processes make each pass through the model, and of the same kind, at the same time.

    Args:
        model: with LoRA, on the CPU or on ``device``.
        group: all of its processes call this.
        device: of this process, where the model is afterwards.
    """
    mesh = init_device_mesh(device.type, (group.size,))
    tuned = {weight for weight in model.parameters() if weight.requires_grad}
    layers = set(model.get_base_model()._no_split_modules or ())  # noqa: SLF001 - transformers' own word for it
    for module in list(model.modules()):
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh, ignored_params=tuned)
    fully_shard(model, mesh=mesh, ignored_params=tuned)
    for weight in tuned:
        weight.data = weight.data.to(device)
    register_fsdp_forward_method(model, "generate")
