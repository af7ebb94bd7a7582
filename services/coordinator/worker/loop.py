"""The worker's loop: lease, fetch, compute, store, hand in (docs/protocol.md, "Work").

Computing happens in a thread behind the ``CoTuner`` Protocol; the loop keeps the lease alive meanwhile. It keeps
nothing that could not be fetched or computed again, so a worker may be killed anywhere and another takes over.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import structlog
from structlog.contextvars import bound_contextvars

from services.coordinator.worker.cotuner import CoTuner, PreparedBase
from services.coordinator.worker.tally import Tally
from shared.errors import (
    BaseModelMismatch,
    BlobTooLarge,
    DigestMismatch,
    FedCoLLMError,
    LayoutMismatch,
    LeaseLost,
    MemoryTooSmall,
    MessageInvalid,
    ModelUnreadable,
    RemoteProblem,
    StorageError,
    TokenizerMismatch,
    TransportError,
    ValuesNotFinite,
)
from shared.folders import is_whole, owned
from shared.protocol.digests import digest_of
from shared.protocol.messages import LONGEST_POLL_SECONDS, Accepted
from shared.protocol.work import (
    CotuneResult,
    CotuneTask,
    EvaluateResult,
    EvaluateTask,
    FailureRequest,
    Heartbeat,
    Lease,
    LeaseAnswer,
    LeaseRequest,
    PreparedModel,
    PrepareResult,
    PrepareTask,
    Question,
    QuestionAnswered,
    QuestionFailed,
    Result,
    ResultRequest,
    Task,
)
from shared.storing import storing
from shared.transport import Transport

HEARTBEATS_A_LEASE = 6  # so that a few may be late, or lost, before the lease is
PAUSE_AFTER_FAILURE_SECONDS = 5.0
KEPT_CHECKPOINTS = 3  # of work that is done elsewhere by now, or comes back
CACHE = "the worker's cache_dir"
HAND_BACK_SECONDS = 2.0
ALIVE_SECONDS = 10.0  # of the minute within which a health check wants to see it
OF_THIS_MACHINE = (BaseModelMismatch, MemoryTooSmall, ModelUnreadable, TokenizerMismatch)
REFUSED_FOR_GOOD = frozenset({BlobTooLarge.code, LayoutMismatch.code, MessageInvalid.code, ValuesNotFinite.code})

log = structlog.get_logger()


class Worker:
    """One worker; rank 0 of a distributed one."""

    ALIVE: Final = "alive"
    """A file in the cache folder, touched whenever the coordinator has answered: nothing here can be asked instead.

    It is gone when the worker has ended, and at the latest when the next one begins to work.
    """

    def __init__(
        self,
        transport: Transport,
        cotuner: CoTuner,
        cache: Path,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        name: str,
        clock: Callable[[], float] = time.monotonic,
        tally: Tally | None = None,
    ) -> None:
        """``tally`` is told what was done; ``clock`` gives seconds that never go back."""
        self._transport = transport
        self._cotuner = cotuner
        self._cache = cache
        self._adapters = cache / "adapters"
        self._checkpoints = cache / "checkpoints"
        self._alive = cache / self.ALIVE
        self._name = name
        self._pause = pause
        self._clock = clock
        self._tally = tally or Tally()
        for folder in (self._adapters, self._checkpoints):
            folder.mkdir(parents=True, exist_ok=True)

    async def run(self) -> None:
        """Work until cancelled, or raise StoreBusy where another worker has the cache folder."""
        with owned(self._cache, "worker"):  # two would write to, and forget, each other's adapters
            self._alive.unlink(missing_ok=True)
            try:
                await self._work()
            finally:
                self._alive.unlink(missing_ok=True)

    async def _work(self) -> None:
        wait_seconds = 0.0  # whoever waits for this worker to be alive need not wait for a whole poll
        while True:
            try:
                with storing(CACHE):
                    await self.step(wait_seconds=wait_seconds)
                wait_seconds = LONGEST_POLL_SECONDS
            except (FedCoLLMError, OSError) as error:
                log.warning("worker.failed", detail=str(error))
                await self._pause(PAUSE_AFTER_FAILURE_SECONDS)

    async def step(self, *, wait_seconds: float) -> bool:
        """Ask once for work and do it; return whether there was any."""
        request = LeaseRequest(worker=self._name, wait_seconds=wait_seconds)
        told = await self._transport.call("POST", "/v1/work/lease", LeaseAnswer, body=request)
        self._alive.touch()
        if told.question is not None:
            await self._answer(told.question)
        lease = told.lease
        if lease is None:
            return told.question is not None
        # In every line from here on, of heartbeats and of the computing thread too.
        with bound_contextvars(job=lease.job_id, run_id=lease.run_id, round=lease.round or None):
            log.info("work.leased", lease=lease.token)
            try:
                async with self._keeping(lease) as require_lease:
                    await self._do(lease, require_lease)
            except FedCoLLMError as error:  # told by the coordinator, or noticed here
                if error.code != LeaseLost.code:
                    raise
                self._tally.leases_lost += 1
                log.warning("work.lost", detail=str(error))
        return True

    async def _answer(self, question: Question) -> None:
        """Put a question to the models; neither it nor what they say is logged."""
        log.info("question.asked", question=question.id)
        try:
            async with self._seen_alive():
                answers = await asyncio.to_thread(
                    self._cotuner.ask,
                    question.terms,
                    prepared=question.prepared,
                    slm=await self._fetch(question.slm_adapter),
                    llm=await self._fetch(question.llm_adapter),
                    prompt=question.prompt,
                    max_new_tokens=question.max_new_tokens,
                )
            outcome: QuestionAnswered | QuestionFailed = QuestionAnswered(answers=answers)
        except TransportError:
            raise
        except (FedCoLLMError, OSError) as error:
            log.warning("question.failed", question=question.id, code=_code(error), detail=str(error))
            outcome = QuestionFailed(code=_code(error), message=str(error)[:4000])
        except Exception as error:  # noqa: BLE001 - whoever asks is told; its words may quote the prompt, so not those
            log.error("question.crashed", question=question.id, kind=type(error).__name__)  # noqa: TRY400
            outcome = QuestionFailed(code="internal", message=f"the worker failed: {type(error).__name__}")
        self._tally.questions[outcome.kind] += 1
        await self._transport.call("PUT", f"/v1/work/questions/{question.id}", Accepted, body=outcome)

    @asynccontextmanager
    async def _seen_alive(self) -> AsyncIterator[None]:
        """Show that this worker is alive while it is not heard of: a question has no heartbeats."""

        async def show() -> None:
            while True:
                await self._pause(ALIVE_SECONDS)
                self._alive.touch()

        task = asyncio.create_task(show())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _do(self, lease: Lease, require_lease: Callable[[], None]) -> None:
        began = self._clock()
        try:
            with storing(CACHE):
                result = await self._result(lease, require_lease)
        except asyncio.CancelledError:
            await self._hand_back(lease)
            raise
        except RemoteProblem as problem:
            await self._give_up(lease, problem)
        except (LeaseLost, TransportError):
            raise  # nobody waits for it, or nobody can be told: the lease runs out, and another worker may do better
        except (FedCoLLMError, OSError) as error:
            if not _of_this_machine(error, lease.task):
                log.warning("work.failed", code=_code(error), detail=str(error))
                await self._hand_in_failure(lease, _code(error), str(error))
                return
            log.warning("work.returned", code=_code(error), detail=str(error))
            await self._hand_in_failure(lease, _code(error), f"{self._name}: {error}", elsewhere=True)
            raise
        except Exception as error:
            # The run's owner must read why; nobody reads a worker's log at night.
            log.exception("work.crashed")
            await self._hand_in_failure(lease, "internal", f"{type(error).__name__}: {error}")
        else:
            body = ResultRequest(token=lease.token, result=result)
            try:
                await self._transport.call("POST", f"/v1/work/{lease.job_id}/result", Accepted, body=body)
            except RemoteProblem as problem:
                await self._give_up(lease, problem)
            else:
                seconds = self._clock() - began
                self._checkpoint(lease).unlink(missing_ok=True)
                self._tally.finish(lease.task.kind, seconds)
                log.info("work.finished", seconds=round(seconds, 1))

    async def _give_up(self, lease: Lease, problem: RemoteProblem) -> None:
        """Hand in as a failure what the coordinator will never take; another worker would compute the same."""
        if problem.code not in REFUSED_FOR_GOOD:
            raise problem
        log.warning("work.failed", code=problem.code, detail=problem.detail)
        await self._hand_in_failure(lease, problem.code, problem.detail)

    async def _hand_back(self, lease: Lease) -> None:
        """Let another worker have at once what this one, which is told to stop, does not finish."""
        message = f"{self._name} was told to stop"
        body = FailureRequest(token=lease.token, elsewhere=True, code="stopped", message=message)
        with suppress(FedCoLLMError, OSError, TimeoutError):  # else the lease runs out
            async with asyncio.timeout(HAND_BACK_SECONDS):
                await self._transport.call("POST", f"/v1/work/{lease.job_id}/failure", Accepted, body=body)
                log.info("work.returned", detail=message)

    async def _hand_in_failure(self, lease: Lease, code: str, message: str, *, elsewhere: bool = False) -> None:
        self._tally.fail(lease.task.kind, code)
        body = FailureRequest(token=lease.token, elsewhere=elsewhere, code=code, message=message[:4000])
        await self._transport.call("POST", f"/v1/work/{lease.job_id}/failure", Accepted, body=body)

    async def _result(self, lease: Lease, require_lease: Callable[[], None]) -> Result:
        slm_into, llm_into = self._adapters / "slm.new", self._adapters / "llm.new"
        match lease.task:
            case PrepareTask():
                pair = await asyncio.to_thread(
                    self._cotuner.prepare,
                    lease.terms,
                    slm_into=slm_into,
                    llm_into=llm_into,
                    require_lease=require_lease,
                )
                return PrepareResult(
                    tokenizer_digest=pair.tokenizer_digest,
                    slm=_prepared(pair.slm, await self._store(slm_into)),
                    llm=_prepared(pair.llm, await self._store(llm_into)),
                    scores=pair.scores,
                )
            case CotuneTask() as task:
                cotuned = await asyncio.to_thread(
                    self._cotuner.cotune,
                    lease.terms,
                    prepared=task.prepared,
                    seed=task.seed,
                    slm=await self._fetch(task.slm_adapter),
                    llm=await self._fetch(task.llm_adapter),
                    slm_into=slm_into,
                    llm_into=llm_into,
                    checkpoint=self._checkpoint(lease),
                    require_lease=require_lease,
                )
                self._tally.steps, self._tally.losses = cotuned.steps, cotuned.losses
                return CotuneResult(
                    slm_adapter=await self._store(slm_into),
                    llm_adapter=await self._store(llm_into),
                    steps=cotuned.steps,
                    losses=dict(cotuned.losses),
                    micro_batch=cotuned.micro_batch,
                )
            case EvaluateTask() as task:
                paths = {
                    "slm_aggregated": await self._fetch(task.slm_aggregated),
                    "slm": await self._fetch(task.slm_adapter),
                    "llm": await self._fetch(task.llm_adapter),
                }
                scores = await asyncio.to_thread(
                    self._cotuner.evaluate, lease.terms, prepared=task.prepared, **paths, require_lease=require_lease
                )
                self._forget_all_but({*paths.values()})
                return EvaluateResult(scores=scores)

    @asynccontextmanager
    async def _keeping(self, lease: Lease) -> AsyncIterator[Callable[[], None]]:
        """Send heartbeats while the block runs, and give it a function that raises LeaseLost once it works in vain."""
        lost = threading.Event()

        def require_lease() -> None:
            if lost.is_set():
                raise LeaseLost(f"the lease of work {lease.job_id} was lost while it was computed: it is dropped")

        task = asyncio.create_task(self._beat(lease, lost))
        self._tally.working = lease.task.kind
        try:
            yield require_lease
        finally:
            self._tally.working = None
            lost.set()  # a worker that is told to stop would else wait for its computing thread
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _beat(self, lease: Lease, lost: threading.Event) -> None:
        while not lost.is_set():
            await self._pause(lease.lease_seconds / HEARTBEATS_A_LEASE)
            body = Heartbeat(token=lease.token)
            try:
                await self._transport.call("POST", f"/v1/work/{lease.job_id}/heartbeat", Accepted, body=body)
                self._alive.touch()
            except (FedCoLLMError, OSError) as error:  # a disk that fails is no reason to fall silent
                code = _code(error)
                self._tally.heartbeats_failed += 1
                if code == LeaseLost.code:
                    lost.set()
                log.warning("work.heartbeat_failed", code=code, detail=str(error))

    async def _fetch(self, digest: str) -> Path:
        """Return the file of an adapter, fetched unless it is here already, whole."""
        file = self._file(digest)
        if not await asyncio.to_thread(is_whole, file, digest):
            await self._transport.download(f"/v1/work/blobs/{digest}", file, digest=digest)
        return file

    async def _store(self, written: Path) -> str:
        """Store an adapter that was just written, keep it at hand, and return its digest."""
        digest, file = await asyncio.to_thread(self._keep, written)
        await self._transport.upload(f"/v1/work/blobs/{digest}", file, Accepted, digest=digest)
        return digest

    def _keep(self, written: Path) -> tuple[str, Path]:
        digest = digest_of(written.read_bytes())
        return digest, written.replace(self._file(digest))

    def _file(self, digest: str) -> Path:
        return self._adapters / digest.removeprefix("sha256:")

    def _checkpoint(self, lease: Lease) -> Path:
        """Return where it is kept how far this work has come, whatever lease it is under."""
        inputs = digest_of(f"{lease.terms.model_dump_json()}{lease.task.model_dump_json()}".encode())
        return self._checkpoints / f"{inputs.removeprefix('sha256:')}.safetensors"

    def _forget_all_but(self, wanted: set[Path]) -> None:
        for file in self._adapters.iterdir():
            if file not in wanted:
                file.unlink()
        checkpoints = sorted(self._checkpoints.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in checkpoints[KEPT_CHECKPOINTS:]:
            file.unlink()


def _code(error: FedCoLLMError | OSError) -> str:
    return error.code if isinstance(error, FedCoLLMError) else "machine"


def _of_this_machine(error: FedCoLLMError | OSError, task: Task) -> bool:
    """Return whether another worker may do better: this disk fails, or this machine has not the models or the room.

    Of models that no machine has prepared yet, that is the run's own trouble, which its operator is to read at once.
    """
    if isinstance(error, DigestMismatch | StorageError | OSError):
        return True
    return isinstance(error, OF_THIS_MACHINE) and not isinstance(task, PrepareTask)


def _prepared(base: PreparedBase, adapter: str) -> PreparedModel:
    return PreparedModel(
        base_digest=base.base_digest,
        adapter=adapter,
        layout=dict(base.layout),
        adapter_config=dict(base.adapter_config),
        licence=base.licence,
    )
