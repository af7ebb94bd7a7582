"""What it costs to sign a request, and to admit one: seconds of a processor, on either side."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from bench.federation import FEDERATION, ManualClock, admit, key_of, known_tokens, settings_of, token_of
from services.coordinator.admission import Arrival
from services.coordinator.context import open_context
from services.coordinator.principals import Role
from shared.credentials import SignedRequests
from shared.egress import Egress
from shared.protocol.digests import digest_of, to_field

AGENTS = 50
REQUESTS = 500
REPEATS = 5
ASKED = Egress("GET", "/v1/wanted?wait_seconds=25.0&holding=sha256:" + "0" * 64, 0, digest_of(b""))


def signature_costs() -> Iterator[str]:
    """Measure, and yield the lines of the report."""
    clock = ManualClock()
    signing = SignedRequests("agent-7", key_of("agent-7"), FEDERATION, clock)

    def signed() -> Arrival:
        fields = {"Content-Digest": to_field(ASKED.digest), **signing.fields(ASKED)}
        return Arrival(ASKED.method, ASKED.target, [(name.lower(), value) for name, value in fields.items()], "here")

    bearing = Arrival("GET", "/v1/runs", [("authorization", f"Bearer {token_of('viewer')}")], "here")
    with (
        tempfile.TemporaryDirectory() as folder,
        open_context(settings_of(Path(folder)), known_tokens(), clock) as context,
    ):
        admit(context, (f"agent-{number}" for number in range(AGENTS)), clock)
        arrivals = iter([signed() for _ in range(REPEATS * REQUESTS)])
        costs = {
            "an agent signs a request": lambda: signing.fields(ASKED),
            "the coordinator admits a signed one": lambda: context.admission.admit(next(arrivals), (Role.AGENT,)),
            "the coordinator admits one with a token": lambda: context.admission.admit(bearing, (Role.VIEWER,)),
        }
        for what, act in costs.items():
            yield f"{what}: {_microseconds(act):.0f} microseconds of a processor"


def _microseconds(act: Callable[[], object]) -> float:
    """Return the median over repeats of what one takes."""
    taken = []
    for _ in range(REPEATS):
        began = time.process_time()
        for _ in range(REQUESTS):
            act()
        taken.append((time.process_time() - began) / REQUESTS * 1e6)
    return median(taken)
