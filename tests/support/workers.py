"""Workers on the work app, and a co-tuner that does on the way what a test wants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.federation import token_of
from services.coordinator.app import create_work_app
from services.coordinator.context import Context
from services.coordinator.worker.cotuner import Cotuned
from services.coordinator.worker.loop import Worker
from services.coordinator.worker.tally import Tally
from shared.credentials import BearerToken
from shared.egress import Ledger, TrafficCount
from shared.transport import open_in_process
from tests.support.cotuners import AddingCoTuner
from tests.support.federations import LLM_LAYOUT, SLM_LAYOUT, begin, submit, terms_of


class BadCoTuner(AddingCoTuner):
    """Does what a test writes into ``act`` before it co-tunes."""

    def __init__(self) -> None:
        super().__init__(SLM_LAYOUT, LLM_LAYOUT)
        self.act: Any = lambda: None

    def cotune(self, *args: Any, **kwargs: Any) -> Cotuned:  # noqa: ANN401 - passed on
        """Act, then add one."""
        self.act()
        return super().cotune(*args, **kwargs)

    def prepare(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
        """Act, then prepare."""
        self.act()
        return super().prepare(*args, **kwargs)


@asynccontextmanager
async def worker_of(
    context: Context,
    cotuner: AddingCoTuner,
    cache: Path,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ledger: Ledger | None = None,
    tally: Tally | None = None,
) -> AsyncIterator[Worker]:
    """Open a worker on the work app."""
    async with open_in_process(
        create_work_app(context), BearerToken(token_of("worker")), ledger or TrafficCount()
    ) as transport:
        yield Worker(transport, cotuner, cache, pause, name="worker", tally=tally)


def to_cotuning(context: Context) -> None:
    """Play a run up to the moment when co-tuning is ordered."""
    begin(context, terms_of(rounds=2))
    submit(context, "ada", 1.0)
    submit(context, "bob", 2.0)
    context.rounds.reconcile()
