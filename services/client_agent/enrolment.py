"""How an agent becomes known: it makes a key of its own, and brings it to the coordinator with its invitation."""

from pathlib import Path

from pydantic import ValidationError

from shared.access import refusal
from shared.credentials import BearerToken
from shared.egress import Ledger
from shared.errors import ConfigurationError
from shared.protocol.identity import IdentityKey
from shared.protocol.membership import Invitation, MemberView
from shared.transport import OnRetry, open_transport

# Long enough for a coordinator that is being restarted.
PATIENCE_SECONDS = 10.0

# Whoever enrols is not known yet: the invitation's token is in the body.
NOBODY = BearerToken("")


def read_invitation(file: Path) -> Invitation:
    """Return the invitation that an operator gave.

    Raises:
        ConfigurationError: the file cannot be read, or is none.
    """
    try:
        return Invitation.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"the invitation: {refusal(file, error)}") from None
    except ValidationError:  # not `from` it: it may quote the token
        raise ConfigurationError(
            f"{file} is no invitation, which `fedcollm agents invite` writes: name the file that the operator gave you"
        ) from None


async def enrol(
    invitation: Invitation,
    key: IdentityKey,
    ledger: Ledger,
    *,
    url: str,
    ca_file: Path | None,
    insecure: bool,
    on_retry: OnRetry,
) -> MemberView:
    """Bring an agent's key to the coordinator at ``url``; the same key again changes nothing.

    Raises:
        RemoteProblem: the coordinator refuses: the invitation is over, or was used with another key.
        Unreachable, ConfigurationError: it cannot be asked.
    """
    async with open_transport(
        url,
        NOBODY,
        ledger,
        patience_seconds=PATIENCE_SECONDS,
        ca_file=ca_file,
        insecure=insecure,
        on_retry=on_retry,
    ) as transport:
        return await transport.call("POST", "/v1/enrol", MemberView, body=invitation.enrolment(key))
