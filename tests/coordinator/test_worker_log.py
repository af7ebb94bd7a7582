"""What a worker logs: what it took, and how it ended."""

from pathlib import Path

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from bench.federation import ManualClock, token_of
from services.coordinator.app import create_work_app
from services.coordinator.context import Context
from services.coordinator.worker.cotuner import PreparedPair
from services.coordinator.worker.loop import Worker
from shared.credentials import BearerToken
from shared.egress import TrafficCount
from shared.errors import FedCoLLMError, TokenizerMismatch
from shared.transport import open_in_process
from tests.support.cotuners import AddingCoTuner
from tests.support.federations import LLM_LAYOUT, RUN, SLM_LAYOUT, terms_of

pytestmark = pytest.mark.anyio


class SlowCoTuner(AddingCoTuner):
    """Prepares a run in 90 seconds by the clock, or fails after them."""

    def __init__(self, clock: ManualClock, error: FedCoLLMError | None) -> None:
        super().__init__(SLM_LAYOUT, LLM_LAYOUT)
        self._clock, self._error = clock, error

    def prepare(self, *args: object, **kwargs: object) -> PreparedPair:
        """Take the time that it takes."""
        self._clock.advance(90)
        if self._error is not None:
            raise self._error
        return super().prepare(*args, **kwargs)


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (None, {"event": "work.finished", "seconds": 90.0, "log_level": "info"}),
        (
            TokenizerMismatch("they do not share a tokenizer"),
            {
                "event": "work.failed",
                "code": "tokenizer_mismatch",
                "detail": "they do not share a tokenizer",
                "log_level": "warning",
            },
        ),
    ],
)
async def test_work_can_be_followed_in_the_workers_log(
    error: FedCoLLMError | None, end: dict[str, object], context: Context, clock: ManualClock, tmp_path: Path
) -> None:
    """A line when it is taken, and one when it is done or cannot be."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    with capture_logs([merge_contextvars]) as lines:
        async with open_in_process(
            create_work_app(context), BearerToken(token_of("worker")), TrafficCount()
        ) as transport:
            worker = Worker(transport, SlowCoTuner(clock, error), tmp_path / "cache", name="worker", clock=clock)
            await worker.step(wait_seconds=0)
    of_work = {"job": f"{RUN}-0-prepare", "run_id": RUN, "round": None}
    assert [line for line in lines if "who" not in line] == [  # the coordinator's own are there too
        {"event": "work.leased", "lease": 1, "log_level": "info", **of_work},
        {**end, **of_work},
    ]
