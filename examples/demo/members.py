"""Make the demo's agents members: ``python -m examples.demo.members FOLDER``, run by docker-compose.yml.

FOLDER is what ``examples.demo.bootstrap`` has filled. Here one process has everybody's keys, the operator's and the
agents', which is for a demo on one machine and for nothing else: elsewhere an organisation enrols with a key that it
has made, and the operator approves that. Whoever is a member already stays one.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from examples.demo.bootstrap import AGENT_URL, FEDERATION
from examples.demo.preset import AGENTS
from services.coordinator.cli.settings import OperatorSettings
from services.coordinator.cli.signing import Signer
from shared.configuration import read_settings
from shared.credentials import BearerToken
from shared.egress import TrafficCount
from shared.errors import FedCoLLMError
from shared.key_file import read_key
from shared.protocol.identity import IdentityKey
from shared.protocol.membership import MemberList, MemberState, MemberView, RevocationRequest
from shared.transport import Transport, open_transport

YEAR_SECONDS = 365 * 86_400
PATIENCE_SECONDS = 30.0


async def admit(operator: Transport, signer: Signer, name: str, key: IdentityKey, *, coordinator_url: str) -> bool:
    """Invite an agent, enrol it with this key and approve it, unless it is a member; return whether it was none."""
    listed = await operator.call("GET", "/v1/agents", MemberList)
    known = next((one for one in listed.agents if one.name == name), None)
    if known is not None and (known.state, known.key) == (MemberState.APPROVED, key.public):
        return False
    path, until = f"/v1/agents/{name}", int(time.time()) + YEAR_SECONDS
    if known is not None and known.key is not None:
        left = RevocationRequest(reason="it has lost its key")
        await operator.call("POST", f"{path}/revoke", MemberView, body=left)
    invitation = signer.invite(name, coordinator_url=coordinator_url, expires_at=until)
    await operator.call("PUT", f"{path}/invitation", MemberView, body=invitation.told())
    await operator.call("POST", "/v1/enrol", MemberView, body=invitation.enrolment(key))
    certificate = signer.certify(name, key.public, not_after=until)
    await operator.call("PUT", f"{path}/certificate", MemberView, body=certificate)
    return True


async def admit_all(folder: Path, coordinator_url: str) -> list[str]:
    """Make the agents that have folders here members of the coordinator at this address; return who was none."""
    operator = read_settings(OperatorSettings, folder / "coordinator" / "operator.toml")
    signer = Signer(FEDERATION, read_key(folder / "coordinator" / "operator.key"))
    async with open_transport(
        coordinator_url,
        BearerToken.read(operator.token_file),
        TrafficCount(),
        patience_seconds=PATIENCE_SECONDS,
        ca_file=operator.ca_file,
    ) as transport:
        keys = {name: read_key(folder / name / "agent.key") for name in AGENTS}
        return [
            name
            for name, key in keys.items()
            if await admit(transport, signer, name, key, coordinator_url=coordinator_url)
        ]


def main() -> int:
    """Admit the agents and say whom."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo.members", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the folders of the services are")
    parser.add_argument("--coordinator", default=AGENT_URL, help=f"its address (default: {AGENT_URL})")
    arguments = parser.parse_args()
    try:
        admitted = asyncio.run(admit_all(arguments.folder, arguments.coordinator))
    except FedCoLLMError as error:
        sys.stderr.write(f"members: {error}\n")
        return 1
    print(f"members now: {', '.join(admitted)} (for this demo only)" if admitted else "all are members already")
    return 0


if __name__ == "__main__":
    sys.exit(main())
