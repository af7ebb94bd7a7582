"""Training as the agent sees it: a Protocol, and the child process that stays alive between rounds.

The child speaks JSON lines on its standard streams and exchanges adapters as files, so that the agent itself
imports no torch, stays responsive while a model trains, and outlives a training that is killed.
"""

import asyncio
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, Field, TypeAdapter

from shared.errors import FedCoLLMError, TrainerStopped, error_of
from shared.protocol.digests import Digest
from shared.protocol.manifest import Manifest
from shared.protocol.terms import FROZEN

LINE_LIMIT = 64 << 20


class TrainingOrder(BaseModel):
    """Train from the adapter in the file ``adapter`` by the manifest's terms, and write the update to ``into``."""

    manifest: Manifest
    adapter: Path
    into: Path
    seed: int
    model_config = FROZEN


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


class Failed(BaseModel):
    """A training has failed, with the code and message of an error of the tree."""

    kind: Literal["failed"] = "failed"
    code: str
    message: str
    model_config = FROZEN


Line = Annotated[Progress | Trained | Failed, Field(discriminator="kind")]
LINES: TypeAdapter[Line] = TypeAdapter(Line)


class Trainer(Protocol):
    """Trains one adapter at a time."""

    async def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
        """Train, and raise what went wrong: ModelError, DataError or TrainingError."""
        ...


class TrainerProcess:
    """A Trainer in a child process, started when it is first needed and again when it has died."""

    def __init__(self, command: Sequence[str]) -> None:
        """``command`` starts the child, which must serve ``services.client_agent.trainer_process.serve``."""
        self._command = command
        self._process: Process | None = None

    async def start(self) -> None:
        """Start the child before it is needed: importing torch takes seconds."""
        await self._running()

    async def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
        """Have the child train.

        Raises:
            TrainerStopped: the child ended without an answer, or met what is no error of ours; the next order gets a
                new one.
            FedCoLLMError: what went wrong in the child.
        """
        process = await self._running()
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(order.model_dump_json().encode() + b"\n")
            await process.stdin.drain()
            while text := await process.stdout.readline():
                match line := LINES.validate_json(text):
                    case Progress():
                        on_progress(line)
                    case Trained():
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
