"""The agent's settings: a TOML file, or FEDCOLLM_AGENT_COORDINATOR_URL and so on in the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.client_agent.policy import Policy
from shared.data.source import DataSource
from shared.devices import DeviceName, DtypeName
from shared.logs import LogFormat
from shared.protocol.identity import PublicKey
from shared.protocol.names import PrincipalName
from shared.protocol.terms import ModelReference
from shared.transport import BaseUrl
from shared.trust import CaFile, Insecure

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - translated, not listened on


class Settings(BaseSettings):
    """Whom the agent works with, what it trains on, and where it keeps what it must not lose."""

    model_config = SettingsConfigDict(
        frozen=True, hide_input_in_errors=True, env_prefix="FEDCOLLM_AGENT_", env_nested_delimiter="__"
    )

    coordinator_url: Annotated[BaseUrl, Field(description="Where the coordinator listens for agents.")]
    name: Annotated[PrincipalName, Field(description="What this agent was invited as.")]
    federation: Annotated[PrincipalName, Field(description="The federation's id, which all that is signed names.")]
    operator_key: Annotated[
        PublicKey,
        Field(
            description="Public half of the operator's key: runs and members are believed by it, and by nothing else."
        ),
    ]
    identity_key_file: Annotated[Path, Field(description="File of this agent's own key; `enrol` makes it once.")]
    state_dir: Annotated[Path, Field(description="Folder of adapters, updates and the ledger; one agent owns it.")]
    slm: Annotated[ModelReference, Field(description="The SLM: a Hugging Face directory or id.")]
    data: Annotated[DataSource, Field(description="The private examples.")]
    evaluation: Annotated[
        DataSource | None,
        Field(
            description="Examples that are not trained on, for runs that have each agent evaluate on such and learn "
            "what all agents' evaluations add up to; without them this agent takes no part in such runs."
        ),
    ] = None
    holdout: Annotated[
        DataSource | None,
        Field(
            description="Examples that are not trained on, for a report that never leaves this machine: what the run "
            "has brought, beside training on one's own data alone, which is then done too and doubles the training."
        ),
    ] = None
    ca_file: CaFile = None
    insecure: Insecure = False
    policy: Annotated[Policy, Field(description="What this agent is willing to do; no coordinator can change it.")] = (
        Policy()
    )
    device: Annotated[DeviceName, Field(description="cpu, cuda, cuda:1, or auto.")] = "auto"
    dtype: Annotated[
        DtypeName, Field(description="Of the frozen base model; nf4 is 4 bits a weight and needs bitsandbytes.")
    ] = "float32"
    threads: Annotated[int, Field(ge=1, description="Torch threads of the training process.")] = 1
    gradient_checkpointing: Annotated[
        bool, Field(description="Compute activations again for the backward pass: slower, in far less memory.")
    ] = False
    log_format: LogFormat = "text"
    status_host: Annotated[str, Field(description="Address of the local status page.")] = "127.0.0.1"
    status_port: Annotated[int, Field(ge=0, le=65535, description="Port of the local status page.")] = 8450

    @property
    def digest_cache(self) -> Path:
        """Where digests of models are kept, so that only a changed model is read again."""
        return self.state_dir / "digests.json"


def page_url(host: str, port: int) -> str:
    """Return where the status page that listens there is found on this machine."""
    return f"http://{EVERYWHERE.get(host, host)}:{port}"
