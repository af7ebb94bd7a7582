"""The worker's settings, from the environment: WORKER_COORDINATOR_URL and so on."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.transport import BaseUrl, Token


class Settings(BaseSettings):
    """Whom the worker works for, and the coordinator's own data."""

    model_config = SettingsConfigDict(frozen=True, hide_input_in_errors=True, env_prefix="WORKER_")

    coordinator_url: Annotated[BaseUrl, Field(description="Where the coordinator listens for workers.")]
    token: Annotated[Token, Field(description="This worker's token.")]
    cache_dir: Annotated[Path, Field(description="Folder of adapters, of this worker alone; may be lost at any time.")]
    auxiliary: Annotated[Path, Field(description="D_a: JSONL with prompt, choices, answer.")]
    validation: Annotated[Path, Field(description="What candidates are evaluated on: JSONL likewise.")]
    name: Annotated[str, Field(description="What the coordinator's log calls this worker.")] = "worker"
    device: Annotated[str, Field(description="cpu, cuda, cuda:1, or auto.")] = "auto"
    dtype: Annotated[Literal["float32", "bfloat16"], Field(description="Of the frozen base models.")] = "float32"
    threads: Annotated[int, Field(ge=1, description="Torch threads.")] = 1
