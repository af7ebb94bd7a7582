"""A co-tuning worker from its start to its end."""

import asyncio
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

import structlog
import torch

from services.coordinator.worker.cotuner import CoTuner
from services.coordinator.worker.loop import Worker
from services.coordinator.worker.metrics import serving, worker_registry
from services.coordinator.worker.model_pair import ModelPair
from services.coordinator.worker.ranks import follow, leading
from services.coordinator.worker.settings import Settings
from services.coordinator.worker.tally import Tally
from shared.access import require_readable, require_writable
from shared.configuration import read_settings
from shared.credentials import BearerToken
from shared.egress import TrafficCount
from shared.errors import FedCoLLMError, about
from shared.logs import TroubleLog, log_to_stderr
from shared.ml.models import pick_device
from shared.ml.process_group import OneProcess, device_of_rank, process_group
from shared.stopping import stoppable
from shared.transport import open_transport

log = structlog.get_logger()


async def serve(settings: Settings, cotuner: CoTuner) -> None:
    """Work until told to stop."""
    authenticator = BearerToken.read(settings.token_file)
    # Two of one name and token would be taken for one worker that asks again, and be given the same work.
    name = settings.name or f"{socket.gethostname()}-{os.getpid()}"
    tally = Tally()
    with serving(worker_registry(tally), host=settings.metrics_host, port=settings.metrics_port) as metrics:
        async with open_transport(
            settings.coordinator_url,
            authenticator,
            TrafficCount(),
            patience_seconds=None,
            ca_file=settings.ca_file,
            insecure=settings.insecure,
            on_retry=TroubleLog(settings.coordinator_url),
        ) as transport:
            log.info(
                "worker.started",
                name=name,
                coordinator=settings.coordinator_url,
                device=str(pick_device(settings.device)),
                threads=settings.threads,
                metrics=metrics,
            )
            worker = Worker(transport, cotuner, settings.cache_dir, name=name, tally=tally)
            work = asyncio.create_task(worker.run())
            loop = asyncio.get_running_loop()
            with stoppable(lambda: loop.call_soon_threadsafe(work.cancel)), suppress(asyncio.CancelledError):
                await work


def run(config: Path | None, *, insecure: bool = False) -> int:
    """Run until told to stop; 2 means that the configuration is wrong. ``insecure`` sets what is called so."""
    try:
        settings = read_settings(Settings, config, given={"insecure": True} if insecure else None)
        log_to_stderr(settings.log_format)
        for name, source in (("auxiliary", settings.auxiliary), ("validation", settings.validation)):
            with about(f"{name}.path"):
                require_readable(source.path)
        with about("cache_dir"):
            require_writable(settings.cache_dir)
        torch.set_num_threads(settings.threads)
        device = device_of_rank(settings.device)
        with process_group(pick_device(device), sharded=settings.sharding == "full") as group:
            cotuner = ModelPair(
                auxiliary=settings.auxiliary,
                validation=settings.validation,
                device=device,
                dtype=settings.dtype,
                gradient_checkpointing=settings.gradient_checkpointing,
                checkpoint_seconds=settings.checkpoint_seconds,
                digest_cache=settings.digest_cache,
                group=group,
            )
            if isinstance(group, OneProcess):
                asyncio.run(serve(settings, cotuner))
            elif group.rank == 0:
                with leading(cotuner, group) as leader:
                    asyncio.run(serve(settings, leader))
            else:
                follow(cotuner, group)
    except FedCoLLMError as error:
        sys.stderr.write(f"worker: {error}\n")
        return 2
    except KeyboardInterrupt:
        pass
    return 0
