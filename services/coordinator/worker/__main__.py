"""Run a co-tuning worker: ``python -m services.coordinator.worker``, configured by WORKER_* in the environment."""

import asyncio
import signal
import sys
from contextlib import suppress

import structlog
import torch
from pydantic import ValidationError

from services.coordinator.worker.loop import CoTuner, Worker
from services.coordinator.worker.model_pair import ModelPair
from services.coordinator.worker.settings import Settings
from shared.errors import FedCoLLMError
from shared.transport import BearerToken, TrafficCount, open_transport


async def serve(settings: Settings, cotuner: CoTuner) -> None:
    """Work until told to stop."""
    authenticator = BearerToken(settings.token)
    async with open_transport(
        settings.coordinator_url, authenticator, TrafficCount(), patience_seconds=None
    ) as transport:
        work = asyncio.create_task(Worker(transport, cotuner, settings.cache_dir, name=settings.name).run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
        with suppress(asyncio.CancelledError):
            await work


def main() -> int:
    """Run until told to stop; 2 means that the configuration is wrong."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        settings = Settings()
        torch.set_num_threads(settings.threads)
        cotuner = ModelPair(
            auxiliary=settings.auxiliary,
            validation=settings.validation,
            device=settings.device,
            dtype=settings.dtype,
            digest_cache=settings.cache_dir.with_suffix(".digests.json"),
        )
        asyncio.run(serve(settings, cotuner))
    except (FedCoLLMError, ValidationError) as error:
        sys.stderr.write(f"worker: {error}\n")
        return 2
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
