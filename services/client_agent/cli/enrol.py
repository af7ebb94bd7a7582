"""``fedcollm-agent enrol``: make this agent's key, and bring it to the coordinator with the operator's invitation."""

import asyncio
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from pydantic import BaseModel

from services.client_agent.cli.status import AgentFile
from services.client_agent.egress_ledger import EgressLedger
from services.client_agent.enrolment import enrol as bring_key
from services.client_agent.enrolment import read_invitation
from services.client_agent.settings import Settings
from shared.cli.console import AsJson, Output, telling
from shared.configuration import read_settings
from shared.egress import TrafficCount
from shared.errors import ConfigurationError
from shared.key_file import keep_key, key_of
from shared.protocol.identity import IdentityKey, PublicKey
from shared.protocol.membership import Invitation, MemberState, check_code
from shared.protocol.names import PrincipalName
from shared.protocol.terms import FROZEN

InvitationFile: TypeAlias = Annotated[
    Path, typer.Option("--invitation", metavar="FILE", help="What the operator gave you.")
]


class Enrolled(BaseModel):
    """Who this agent is; its operator compares the check code."""

    federation: PrincipalName
    name: PrincipalName
    state: MemberState
    key: PublicKey
    check_code: str
    model_config = FROZEN


def enrol(*, invitation: InvitationFile, config: AgentFile = None, as_json: AsJson = False) -> None:
    """Make this agent's key, unless there is one, and bring it to the coordinator; `init` does it too.

    The settings must say what the invitation says. The same again changes nothing.
    """
    with telling(as_json=as_json) as output:
        settings, invited = read_settings(Settings, config), read_invitation(invitation)
        _require_same(settings, invited)
        enrolled = enrolled_with(settings, invited, output)
        output.result(enrolled, *enrolled_lines(enrolled))


def enrolled_with(settings: Settings, invitation: Invitation, output: Output) -> Enrolled:
    """Enrol the agent that has these settings; errors are those of ``keep_key`` and ``enrolment.enrol``."""
    key = key_of(settings.identity_key_file)
    keep_key(settings.identity_key_file, key)  # before it is brought: one that is lost lets nobody in again
    view = asyncio.run(
        bring_key(
            invitation,
            key,
            EgressLedger(settings.state_dir, TrafficCount()),
            url=settings.coordinator_url,
            ca_file=settings.ca_file,
            insecure=settings.insecure,
            on_retry=output.retrying,
        )
    )
    return Enrolled(
        federation=settings.federation,
        name=settings.name,
        state=view.state,
        key=key.public,
        check_code=code_of(settings, key),
    )


def code_of(settings: Settings, key: IdentityKey) -> str:
    """Return the check code of the agent that has these settings and this key."""
    return check_code(
        federation=settings.federation, operator_key=settings.operator_key, name=settings.name, key=key.public
    )


def enrolled_lines(enrolled: Enrolled) -> list[str]:
    """Say who this agent is now, and what is to be done with it."""
    who = f"{enrolled.name} has brought its key to {enrolled.federation}; its check code is {enrolled.check_code}"
    if enrolled.state is MemberState.APPROVED:
        return [who, "the operator has approved it: the invitation is worth nothing any more, and can be deleted"]
    return [who, "read it to the operator, by telephone for instance: once it was compared, this agent is a member"]


def _require_same(settings: Settings, invitation: Invitation) -> None:
    """Raise unless the settings say what the invitation says: what is signed would not be understood."""
    for name in ("name", "federation", "operator_key"):
        if getattr(settings, name) != getattr(invitation, name):
            raise ConfigurationError(
                f"{name} is not what the invitation says: is it another agent's, or another federation's? Else correct "
                f"{name} in the settings, once you know from the operator that it has changed"
            )
