"""Training as the agent sees it: a Protocol, and the child process that stays alive between rounds.

The child speaks JSON lines on its standard streams and exchanges adapters as files, so that the agent itself
imports no torch, stays responsive while a model trains, and outlives a training that is killed.
"""

import asyncio
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeAlias

from pydantic import BaseModel, Field, TypeAdapter

from shared.errors import FedCoLLMError, TrainerStopped, error_of
from shared.protocol.digests import Digest
from shared.protocol.manifest import Manifest
from shared.protocol.terms import FROZEN

LINE_LIMIT = 64 << 20


class TrainingOrder(BaseModel):
    """Train from the adapter in the file ``adapter`` by the manifest's terms, and write the update to ``into``."""

    kind: Literal["train"] = "train"
    manifest: Manifest
    adapter: Path
    into: Path
    seed: int
    model_config = FROZEN


class StandaloneOrder(BaseModel):
    """Train likewise, for the hold-out report; without an ``adapter`` from theta^0. It gives way to the next order."""

    kind: Literal["standalone"] = "standalone"
    manifest: Manifest
    adapter: Path | None
    into: Path
    seed: int
    model_config = FROZEN


class MeasureOrder(BaseModel):
    """Measure the adapter in the file ``adapter``, or without one the base model, on the hold-out; gives way too."""

    kind: Literal["measure"] = "measure"
    manifest: Manifest
    adapter: Path | None
    model_config = FROZEN


class GiveWay(BaseModel):
    """Let go of what no round waits for, if such goes on."""

    kind: Literal["give_way"] = "give_way"
    model_config = FROZEN


SpareTimeOrder: TypeAlias = StandaloneOrder | MeasureOrder
Order = Annotated[TrainingOrder | SpareTimeOrder | GiveWay, Field(discriminator="kind")]
ORDERS: TypeAdapter[Order] = TypeAdapter(Order)


class Progress(BaseModel):
    """How far a training is."""

    kind: Literal["progress"] = "progress"
    step: int
    steps: int
    loss: float
    model_config = FROZEN


class LocalEvaluation(BaseModel):
    """This agent's own evaluation of a round's adapter: its summed loss in nats, and right answers of how many.

    Of completions, the answers' tokens that are right count as their share of all, so that both kinds are out of
    ``total`` examples.
    """

    loss: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    correct: Annotated[int, Field(ge=0)]
    total: Annotated[int, Field(ge=0)]
    model_config = FROZEN


class Trained(BaseModel):
    """A training has ended well; the update's file has this digest. Losses are for this machine's eyes only.

    ``evaluation`` is of the round's adapter as it came, where the manifest asks for one.
    """

    kind: Literal["trained"] = "trained"
    digest: Digest
    examples: int
    steps: int
    mean_loss: float
    evaluation: LocalEvaluation | None = None
    model_config = FROZEN


class Measured(BaseModel):
    """What the SLM has scored on the hold-out, example by example in its order; for this machine's eyes only.

    ``right`` is 1 or 0 of multiple choice; of a completion, how many tokens of its answer are the most likely ones.
    ``losses`` are the nats of all ``tokens`` of the right answer. ``examples`` names what was measured on, out of which
    ``left_out`` were taken because they are trained on too. ``chance`` is what guessing would score.
    """

    kind: Literal["measured"] = "measured"
    examples: Digest
    left_out: int
    completions: bool
    chance: float
    right: tuple[int, ...]
    tokens: tuple[int, ...]
    losses: tuple[float, ...]
    model_config = FROZEN


class GaveWay(BaseModel):
    """What was ordered was let go of; nothing of it is left."""

    kind: Literal["gave_way"] = "gave_way"
    model_config = FROZEN


class Failed(BaseModel):
    """A training has failed, with the code and message of an error of the tree."""

    kind: Literal["failed"] = "failed"
    code: str
    message: str
    model_config = FROZEN


Answer: TypeAlias = Trained | Measured | GaveWay
Line = Annotated[Progress | Answer | Failed, Field(discriminator="kind")]
LINES: TypeAdapter[Line] = TypeAdapter(Line)


class Trainer(Protocol):
    """Trains one adapter at a time."""

    async def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
        """Train, and raise what went wrong: ModelError, DataError or TrainingError."""
        ...


class SpareTimeTrainer(Protocol):
    """Does what no round waits for, when a Trainer has nothing else to do."""

    async def between(self, order: SpareTimeOrder) -> Answer:
        """Train standalone or measure, unless a round's training comes in between; raise as ``train`` does."""
        ...


class TrainerProcess:
    """A Trainer in a child process, started when it is first needed and again when it has died."""

    def __init__(self, command: Sequence[str]) -> None:
        """``command`` starts the child, which must serve ``services.client_agent.trainer_process.serve``."""
        self._command = command
        self._process: Process | None = None
        self._turn = asyncio.Lock()
        self._wanted = False  # for a round
        self._between = False

    async def start(self) -> None:
        """Start the child before it is needed: importing torch takes seconds."""
        await self._running()

    async def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
        """Have the child train; what no round waits for gives way, after its step.

        Raises:
            TrainerStopped: the child ended without an answer, or met what is no error of ours; the next order gets a
                new one.
            FedCoLLMError: what went wrong in the child.
        """
        self._wanted = True
        try:
            if self._between:
                _tell(self._process, GiveWay())
            async with self._turn:
                answer = await self._ask(await self._running(), order, on_progress)
        finally:
            self._wanted = False
        if not isinstance(answer, Trained):
            await self.stop()
            raise TrainerStopped(f"the training process answered an order to train with {answer.kind} and was stopped")
        return answer

    async def between(self, order: SpareTimeOrder) -> Answer:
        """Have the child do what no round waits for; errors are those of ``train``."""
        async with self._turn:
            process = await self._running()
            if self._wanted:
                return GaveWay()
            self._between = True
            try:
                return await self._ask(process, order, lambda _: None)
            finally:
                self._between = False

    async def _ask(self, process: Process, order: Order, on_progress: Callable[[Progress], None]) -> Answer:
        """Give the child an order, and return its answer."""
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        try:
            _tell(process, order)
            await process.stdin.drain()
            while text := await process.stdout.readline():
                match line := LINES.validate_json(text):
                    case Progress():
                        on_progress(line)
                    case Trained() | Measured() | GaveWay():
                        return line
                    case Failed():
                        if line.code == FedCoLLMError.code:
                            # A fault that nobody foresaw may have broken the process: an error of CUDA stays with it.
                            await self.stop()
                        raise error_of(line.code, line.message, otherwise=TrainerStopped)
        except ConnectionError:
            pass
        except ValueError as error:  # a line that is too long, or none of ours
            await self.stop()
            raise TrainerStopped(f"the training process wrote what is no answer and was stopped: {error}") from error
        except asyncio.CancelledError:
            await self.stop()  # an answer to an order that nobody waits for would be taken for the next one's
            raise
        code = await process.wait()
        if code == -signal.SIGKILL:
            raise TrainerStopped(
                "the training process was killed, most likely for want of memory: give this machine or its container "
                "more, or set gradient_checkpointing, or dtype to bfloat16 or nf4"
            )
        raise TrainerStopped(f"the training process ended with code {code} before it had an answer; see its log")

    async def stop(self) -> None:
        """End the child."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _running(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            # In a session of its own, so that Ctrl-C at a terminal reaches the agent alone, which then ends the child.
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, stdout=PIPE, limit=LINE_LIMIT, start_new_session=True
            )
        return self._process


def _tell(process: Process | None, order: Order) -> None:
    """Write a line to the child at once: whoever else has a turn cannot come in between."""
    if process is not None and process.stdin is not None:
        process.stdin.write(order.model_dump_json().encode() + b"\n")
