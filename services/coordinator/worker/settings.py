"""The worker's settings: a TOML file, or FEDCOLLM_WORKER_COORDINATOR_URL and so on in the environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.data.source import DataSource
from shared.devices import DeviceName, DtypeName
from shared.logs import LogFormat
from shared.transport import BaseUrl
from shared.trust import CaFile, Insecure


class Settings(BaseSettings):
    """Whom the worker works for, and the coordinator's own data."""

    model_config = SettingsConfigDict(
        frozen=True, hide_input_in_errors=True, env_prefix="FEDCOLLM_WORKER_", env_nested_delimiter="__"
    )

    coordinator_url: Annotated[BaseUrl, Field(description="Where the coordinator listens for workers.")]
    token_file: Annotated[Path, Field(description="File that holds this worker's token and nothing else.")]
    cache_dir: Annotated[
        Path,
        Field(description="Folder of adapters and models' digests, of this worker alone; may be lost at any time."),
    ]
    auxiliary: Annotated[DataSource, Field(description="D_a, what both models are co-tuned on.")]
    validation: Annotated[DataSource, Field(description="What candidates are evaluated on.")]
    name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=128,
            description="What the coordinator calls this worker, and no other; host and process where it is not set.",
            examples=["gpu-1"],
        ),
    ] = None
    ca_file: CaFile = None
    insecure: Insecure = False
    device: Annotated[DeviceName, Field(description="cpu, cuda, cuda:1, or auto.")] = "auto"
    dtype: Annotated[
        DtypeName, Field(description="Of the frozen base models; nf4 is 4 bits a weight and needs bitsandbytes.")
    ] = "float32"
    threads: Annotated[int, Field(ge=1, description="Torch threads.")] = 1
    gradient_checkpointing: Annotated[
        bool, Field(description="Compute activations again for the backward pass: slower, in far less memory.")
    ] = False

    sharding: Annotated[
        Literal["none", "full"],
        Field(
            description="Whether each of several processes has all of both models, or a part of their layers (FSDP2)."
        ),
    ] = "none"
    checkpoint_seconds: Annotated[
        float,
        Field(ge=0, description="From one checkpoint of a co-tuning to the next: what is lost at most with a worker."),
    ] = 60.0

    log_format: LogFormat = "text"
    metrics_host: Annotated[
        str, Field(description="Address for Prometheus: plain HTTP, for whoever asks; keep it inside.")
    ] = "127.0.0.1"
    metrics_port: Annotated[
        int | None, Field(ge=0, le=65535, description="Port for Prometheus; none unless set.", examples=[8442])
    ] = None

    @property
    def digest_cache(self) -> Path:
        """Where digests of models are kept, so that only a changed model is read again."""
        return self.cache_dir / "digests.json"
