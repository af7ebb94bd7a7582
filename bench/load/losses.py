"""Which agents are lost in a round, and before which of their messages."""

import random
from collections.abc import Sequence

from shared.protocol.rounds import STAGES

READY = "ready"

# An agent's messages of a round, in their order: that it is ready, and one for each stage.
MESSAGES = (READY, *(stage.value for stage in STAGES))


def losses(agents: Sequence[str], share: float, *, round_number: int, seed: int) -> dict[str, str]:
    """Return the agents that are lost in a round, each with the message that it does not send.

    Before they are ready as many are lost in every round, so that a cohort can be full without them; the others at any
    stage.
    """
    draw = random.Random(f"{seed}/{round_number}")  # noqa: S311 - a sample, and no secret
    lost = draw.sample(list(agents), round(share * len(agents)))
    unready = never_ready(len(agents), share)
    return {name: READY if place < unready else draw.choice(MESSAGES[1:]) for place, name in enumerate(lost)}


def never_ready(agents: int, share: float) -> int:
    """Return how many agents of a round are lost before they are ready."""
    return round(share * agents) // len(MESSAGES)
