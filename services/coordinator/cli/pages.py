"""Lists that come in pages, read to their ends."""

from shared.protocol.membership import MemberList
from shared.protocol.messages import RoundList, RoundView
from shared.transport import Transport


async def all_members(operator: Transport) -> MemberList:
    """Return all agents that were ever invited, page after page."""
    found, after = MemberList(agents=()), ""
    while True:
        page = await operator.call("GET", "/v1/agents", MemberList, params={"after": after})
        found = MemberList(agents=found.agents + page.agents)
        if page.next is None:
            return found
        after = page.next


async def all_rounds(viewer: Transport, run_id: str) -> tuple[RoundView, ...]:
    """Return all rounds of a run, page after page."""
    found: tuple[RoundView, ...] = ()
    after = 0
    while True:
        page = await viewer.call("GET", f"/v1/runs/{run_id}/rounds", RoundList, params={"after": after})
        found += page.rounds
        if page.next is None:
            return found
        after = page.next
