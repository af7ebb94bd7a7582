"""An operator's settings: options, FEDCOLLM_OPERATOR_COORDINATOR_URL and so on in the environment, or a TOML file."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.protocol.names import PrincipalName
from shared.transport import BaseUrl
from shared.trust import CaFile, Insecure


class OperatorSettings(BaseSettings):
    """Which coordinator is operated, and as whom."""

    model_config = SettingsConfigDict(
        frozen=True, hide_input_in_errors=True, env_prefix="FEDCOLLM_OPERATOR_", env_nested_delimiter="__"
    )

    coordinator_url: Annotated[BaseUrl, Field(description="Where the coordinator listens for operators.")]
    token_file: Annotated[Path, Field(description="File that holds the operator's token and nothing else.")]
    agents_url: Annotated[
        BaseUrl | None,
        Field(
            description="Where agents reach the coordinator, as invitations say, if elsewhere than an operator does.",
            examples=["https://fed.example:8440"],
        ),
    ] = None
    federation: Annotated[
        PrincipalName | None,
        Field(description="The federation's id, as the coordinator has it: for who signs.", examples=["clinics"]),
    ] = None
    key_file: Annotated[
        Path | None,
        Field(
            description="File of the operator's key, which says who is a member and what a run is; no other machine "
            "needs it.",
            examples=["operator.key"],
        ),
    ] = None
    ca_file: CaFile = None
    insecure: Insecure = False
