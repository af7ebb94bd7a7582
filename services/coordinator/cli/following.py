"""Follow a run as anybody may: its log by long polls, and its rounds after each."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from services.coordinator.cli.pages import all_rounds
from shared.errors import TransportError
from shared.protocol.messages import LONGEST_POLL_SECONDS, Event, EventList, RoundView, RunView
from shared.protocol.rounds import ENDED_RUNS
from shared.transport import Transport


@dataclass
class Followed:
    """What is known of a run at the moment; ``trouble`` is why nothing newer is.

    ``sign`` signs what the run is, where its operator can; it is called once a worker has prepared it.
    """

    run: RunView | None = None
    rounds: tuple[RoundView, ...] = ()
    events: list[Event] = field(default_factory=list)
    trouble: TransportError | None = None
    sign: Callable[[Transport], Awaitable[object]] | None = None

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.run is not None and self.run.state in ENDED_RUNS

    def retrying(self, problem: TransportError | None) -> None:
        """Be a transport's OnRetry."""
        self.trouble = problem


async def catch_up(operator: Transport, run_id: str, followed: Followed, *, wait_seconds: float) -> bool:
    """Bring ``followed`` up to date, waiting for news if there are none; return whether there were."""
    after = followed.events[-1].seq if followed.events else 0
    params = {"after": after, "wait_seconds": wait_seconds}
    page = await operator.call("GET", f"/v1/runs/{run_id}/events", EventList, params=params)
    followed.events += page.events
    # Without news too: a round's clock starts again with the coordinator, and no event tells of that.
    followed.rounds = await all_rounds(operator, run_id)
    if page.events or followed.run is None:
        followed.run = await operator.call("GET", f"/v1/runs/{run_id}", RunView)
    if followed.sign is not None and waits_for_signature(followed.run):
        await followed.sign(operator)
    return bool(page.events)


def waits_for_signature(run: RunView) -> bool:
    """Whether a run has been prepared, and goes on once the operator has signed what it is."""
    return run.base_scores is not None and not run.signed and run.state not in ENDED_RUNS


async def follow(operator: Transport, run_id: str, followed: Followed, on_news: Callable[[], None]) -> None:
    """Keep ``followed`` up to date until the run has ended and its log has been read to the end."""
    news = True
    while news or not followed.ended:
        news = await catch_up(operator, run_id, followed, wait_seconds=0 if followed.ended else LONGEST_POLL_SECONDS)
        on_news()
