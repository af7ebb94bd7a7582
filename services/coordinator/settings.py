"""The coordinator's settings: a TOML file, or FEDCOLLM_COORDINATOR_DATA_DIR and so on in the environment."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.logs import LogFormat
from shared.loopback import is_here
from shared.protocol.identity import PublicKey
from shared.protocol.names import PrincipalName


class Settings(BaseSettings):
    """Where the coordinator keeps its state and where it listens."""

    model_config = SettingsConfigDict(
        frozen=True, hide_input_in_errors=True, env_prefix="FEDCOLLM_COORDINATOR_", env_nested_delimiter="__"
    )

    data_dir: Annotated[Path, Field(description="Folder of database and blobs; one coordinator owns it.")]
    principals_file: Annotated[Path, Field(description="JSON: who has a token; `fedcollm tokens` changes it.")]
    federation: Annotated[PrincipalName, Field(description="The federation's id, which all that is signed names.")]
    operator_key: Annotated[
        PublicKey,
        Field(description="Public half of the operator's key, which says who is a member and what a run is."),
    ]
    host: Annotated[str, Field(description="Address for agents, operators and screens.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port for agents, operators and screens.")] = 8440
    work_host: Annotated[str, Field(description="Address for workers; keep it inside.")] = "127.0.0.1"
    work_port: Annotated[int, Field(ge=0, le=65535, description="Port for workers.")] = 8441
    tls_certificate_file: Annotated[
        Path | None,
        Field(
            description="PEM file of the certificate that both ports show, and of those between it and its CA. "
            "`fedcollm tls init` makes one.",
            examples=["tls/server.pem"],
        ),
    ] = None
    tls_key_file: Annotated[
        Path | None,
        Field(description="PEM file of the certificate's key, without a password.", examples=["tls/server.key"]),
    ] = None
    insecure: Annotated[
        bool,
        Field(description="Serve plain HTTP to other machines: only where the network itself encrypts."),
    ] = False
    log_format: LogFormat = "text"
    lease_seconds: Annotated[float, Field(gt=0, description="How long a worker may be silent.")] = 30.0
    max_adapter_bytes: Annotated[int, Field(gt=0, description="Largest adapter that a worker may store.")] = 1 << 32
    keep_rounds: Annotated[
        int | None,
        Field(
            gt=0,
            description="Of each run, of how many of its newest published rounds the adapters are kept; of all if it "
            "is not set.",
            examples=[10],
        ),
    ] = None
    body_silence_seconds: Annotated[
        float, Field(gt=0, description="How long a request's body may bring no byte; then it is broken off.")
    ] = 20.0
    body_bytes_per_second: Annotated[
        float, Field(gt=0, description="How fast a body must come, but for that much silence: below the worst link.")
    ] = 4096.0

    requests_per_minute: Annotated[int, Field(gt=0, description="How many requests each party may send.")] = 1200
    failures_per_minute: Annotated[
        int, Field(gt=0, description="How many requests of one address may not say who sends them; it waits then.")
    ] = 30
    upload_bytes_per_day: Annotated[int, Field(gt=0, description="How much each agent may send.")] = 1 << 36

    @model_validator(mode="after")
    def _one_port_each(self) -> Self:
        # The port alone says whether a request came from inside (``by_port``); 0 lets the system choose.
        if self.port == self.work_port != 0:
            raise ValueError(f"port and work_port are both {self.port}: give each its own, whatever the addresses")
        return self

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        if (self.tls_certificate_file is None) is not (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file go together: set both, or none")
        for setting, host in (("host", self.host), ("work_host", self.work_host)):
            if not (self.tls_certificate_file or self.insecure or is_here(host)):
                raise ValueError(
                    f"{setting} is {host}, where other machines speak to it, and nothing would be encrypted: set "
                    "tls_certificate_file and tls_key_file (`fedcollm tls init` makes both), or listen on 127.0.0.1 "
                    "behind a server that ends TLS; only where the network itself encrypts, set insecure = true "
                    "(--insecure)"
                )
        return self
