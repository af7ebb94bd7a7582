"""The reconciler's loop: at start, after every change and every second, each run gets what it lacks.

Sums have a thread of their own, because they take seconds where there are many agents: meanwhile the other runs go on,
and so does the rest of a pass.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager

import structlog

from services.coordinator.context import Context
from services.coordinator.records import Round
from shared.errors import StorageFull, StorageReadOnly
from shared.logs import DiskLog

RECONCILE_SECONDS = 1.0
FORGET_SECONDS = 10.0

log = structlog.get_logger()


@asynccontextmanager
async def reconciling(context: Context) -> AsyncIterator[None]:
    """Reconcile until the block ends, and with it the last pass and the last sum."""
    # A thread goes on when its task is cancelled. These are waited for where nothing can be cancelled, because a
    # pass that outlived its coordinator would write into a folder that the next one owns.
    with ThreadPoolExecutor(max_workers=1) as thread, ThreadPoolExecutor(max_workers=1) as adding:
        task = asyncio.create_task(_reconcile_forever(context, thread, Sums(context, adding)))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            adding.shutdown(wait=False, cancel_futures=True)


class Sums:
    """The sums that are under way, one of each run; they are made one after the other."""

    def __init__(self, context: Context, thread: Executor) -> None:
        self._context = context
        self._thread = thread
        self._by_run: dict[str, asyncio.Future[bool]] = {}

    def begin(self, closing: Round) -> None:
        """Have the sum of a round made, unless one of its run is."""
        if closing.run_id not in self._by_run:
            made = asyncio.get_running_loop().run_in_executor(self._thread, self._context.rounds.add_up, closing)
            made.add_done_callback(self._look_again)
            self._by_run[closing.run_id] = made

    def take_ended(self) -> list[asyncio.Future[bool]]:
        """Return those that have ended, and forget them."""
        ended = [run_id for run_id, made in self._by_run.items() if made.done()]
        return [self._by_run.pop(run_id) for run_id in ended]

    def _look_again(self, made: asyncio.Future[bool]) -> None:
        """Wake the reconciler: a sum that was overtaken is due again, and one that has failed can wait a second."""
        if not made.cancelled() and made.exception() is None and made.result():
            self._context.changes.ring()


async def _reconcile_forever(context: Context, thread: Executor, sums: Sums) -> None:
    loop = asyncio.get_running_loop()
    forgot_at, disk = loop.time(), DiskLog()
    while True:
        waiting = asyncio.create_task(context.changes.wait(RECONCILE_SECONDS))
        await asyncio.sleep(0)  # the waiter takes its bell before the work begins, so that no ring is missed
        began, well = loop.time(), False
        try:
            ended = sums.take_ended()
            advanced = await loop.run_in_executor(thread, context.rounds.advance)
            for closing in advanced.closing:
                sums.begin(closing)
            await loop.run_in_executor(thread, context.token_log.catch_up)
            if loop.time() > forgot_at + FORGET_SECONDS:
                await loop.run_in_executor(thread, context.admission.forget)
                await loop.run_in_executor(thread, context.forget_partial_uploads)
                await loop.run_in_executor(thread, context.retention.collect_next)
                forgot_at = loop.time()
            if advanced.no_storage is not None:
                raise advanced.no_storage  # noqa: TRY301 - all ways to a full disk end below
            failed = [made for made in ended if not made.result()]
            well = advanced.well and not failed
            disk(None)
        except (StorageFull, StorageReadOnly) as error:
            disk(error)
        except Exception:
            # One bad pass (a locked database) must not end all passes; the next one is a second away.
            log.exception("reconcile.crashed")
        context.metrics.reconciled(loop.time() - began, well=well)
        await waiting
