"""A worker of several processes, as `torchrun` starts them: the first speaks HTTP, and the others do what it does.

What goes wrong in all of them alike (a loss, a lease, models that are not the run's) is told by the first and forgotten
by the others. Anything else ends the process in which it happens: the others would wait for it in vain, and `torchrun`
starts all of them anew, to go on from the last checkpoint.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Literal

import structlog
from pydantic import BaseModel, Field, TypeAdapter

from services.coordinator.worker.cotuner import Cotuned, CoTuner, PreparedPair
from shared.errors import FedCoLLMError
from shared.ml.process_group import ProcessGroup, SeveralProcesses
from shared.protocol.messages import RoundScores
from shared.protocol.questions import Answers
from shared.protocol.terms import FROZEN, RunTerms
from shared.protocol.work import PreparedDigests

log = structlog.get_logger()

# Where the first process reads and writes adapters, the others do neither.
NOWHERE = Path(os.devnull)


class Prepare(BaseModel):
    """The first process is about to prepare a run."""

    task: Literal["prepare"] = "prepare"
    terms: RunTerms
    model_config = FROZEN


class Cotune(BaseModel):
    """It is about to co-tune."""

    task: Literal["cotune"] = "cotune"
    terms: RunTerms
    prepared: PreparedDigests
    seed: int
    model_config = FROZEN


class Evaluate(BaseModel):
    """It is about to evaluate."""

    task: Literal["evaluate"] = "evaluate"
    terms: RunTerms
    prepared: PreparedDigests
    model_config = FROZEN


class Ask(BaseModel):
    """It is about to put a question to the models."""

    task: Literal["ask"] = "ask"
    terms: RunTerms
    prepared: PreparedDigests
    prompt: str
    max_new_tokens: int
    model_config = FROZEN


class Stop(BaseModel):
    """It has ended."""

    task: Literal["stop"] = "stop"
    model_config = FROZEN


Order = Annotated[Prepare | Cotune | Evaluate | Ask | Stop, Field(discriminator="task")]
_ORDER: TypeAdapter[Order] = TypeAdapter(Order)


class Leader:
    """The co-tuner of the first process: tells the others what to do, and does it with them."""

    def __init__(self, cotuner: CoTuner, group: SeveralProcesses) -> None:
        self._cotuner = cotuner
        self._group = group

    def prepare(
        self, terms: RunTerms, *, slm_into: Path, llm_into: Path, require_lease: Callable[[], None]
    ) -> PreparedPair:
        """As ``CoTuner``, with all processes."""
        with self._all_do(Prepare(terms=terms)):
            return self._cotuner.prepare(
                terms, slm_into=slm_into, llm_into=llm_into, require_lease=_agreed(self._group, require_lease)
            )

    def cotune(
        self,
        terms: RunTerms,
        *,
        prepared: PreparedDigests,
        seed: int,
        slm: Path,
        llm: Path,
        slm_into: Path,
        llm_into: Path,
        checkpoint: Path,
        require_lease: Callable[[], None],
    ) -> Cotuned:
        """As ``CoTuner``, with all processes."""
        with self._all_do(Cotune(terms=terms, prepared=prepared, seed=seed)):
            return self._cotuner.cotune(
                terms,
                prepared=prepared,
                seed=seed,
                slm=slm,
                llm=llm,
                slm_into=slm_into,
                llm_into=llm_into,
                checkpoint=checkpoint,
                require_lease=_agreed(self._group, require_lease),
            )

    def evaluate(
        self,
        terms: RunTerms,
        *,
        prepared: PreparedDigests,
        slm_aggregated: Path,
        slm: Path,
        llm: Path,
        require_lease: Callable[[], None],
    ) -> RoundScores:
        """As ``CoTuner``, with all processes."""
        with self._all_do(Evaluate(terms=terms, prepared=prepared)):
            return self._cotuner.evaluate(
                terms,
                prepared=prepared,
                slm_aggregated=slm_aggregated,
                slm=slm,
                llm=llm,
                require_lease=_agreed(self._group, require_lease),
            )

    def ask(
        self,
        terms: RunTerms,
        *,
        prepared: PreparedDigests,
        slm: Path,
        llm: Path,
        prompt: str,
        max_new_tokens: int,
    ) -> Answers:
        """As ``CoTuner``, with all processes."""
        order = Ask(terms=terms, prepared=prepared, prompt=prompt, max_new_tokens=max_new_tokens)
        with self._all_do(order):
            return self._cotuner.ask(
                terms, prepared=prepared, slm=slm, llm=llm, prompt=prompt, max_new_tokens=max_new_tokens
            )

    @contextmanager
    def _all_do(self, order: Order) -> Iterator[None]:
        self._group.tell(order.model_dump_json())
        try:
            yield
        except FedCoLLMError:
            raise
        except Exception as error:
            log.exception("worker.broken")
            raise SystemExit(1) from error


@contextmanager
def leading(cotuner: CoTuner, group: SeveralProcesses) -> Iterator[Leader]:
    """Give the first process its co-tuner, and let the others go when the block has ended well."""
    yield Leader(cotuner, group)
    with suppress(RuntimeError):  # they are gone already, as where all were told to stop at once
        group.tell(Stop().model_dump_json())


def follow(cotuner: CoTuner, group: SeveralProcesses) -> None:
    """Do what the first process does until it stops, as another one."""
    require_lease = _agreed(group, lambda: None)
    while not isinstance(order := _ORDER.validate_json(group.listen()), Stop):
        try:
            _do(cotuner, order, require_lease)
        except FedCoLLMError as error:
            log.info("work.dropped", rank=group.rank, code=error.code, detail=str(error))


def _do(cotuner: CoTuner, order: Prepare | Cotune | Evaluate | Ask, require_lease: Callable[[], None]) -> None:
    match order:
        case Prepare():
            cotuner.prepare(order.terms, slm_into=NOWHERE, llm_into=NOWHERE, require_lease=require_lease)
        case Cotune():
            cotuner.cotune(
                order.terms,
                prepared=order.prepared,
                seed=order.seed,
                slm=NOWHERE,
                llm=NOWHERE,
                slm_into=NOWHERE,
                llm_into=NOWHERE,
                checkpoint=NOWHERE,
                require_lease=require_lease,
            )
        case Evaluate():
            cotuner.evaluate(
                order.terms,
                prepared=order.prepared,
                slm_aggregated=NOWHERE,
                slm=NOWHERE,
                llm=NOWHERE,
                require_lease=require_lease,
            )
        case Ask():
            cotuner.ask(
                order.terms,
                prepared=order.prepared,
                slm=NOWHERE,
                llm=NOWHERE,
                prompt=order.prompt,
                max_new_tokens=order.max_new_tokens,
            )


def _agreed(group: ProcessGroup, require_lease: Callable[[], None]) -> Callable[[], None]:
    """Return a function that all processes call at the same time, and that raises in all where the lease is lost."""

    def ask() -> bytes:
        require_lease()
        return b""

    def require() -> None:
        group.from_first(ask)

    return require
