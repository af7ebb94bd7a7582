"""``fedcollm-agent adapters``: what this agent holds, for use on this machine."""

import shutil
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from pydantic import BaseModel

from services.client_agent.cli.status import AgentFile
from services.client_agent.settings import Settings
from services.client_agent.state import StateFolder
from shared.access import require_readable
from shared.adapter_folder import CONFIG, WEIGHTS, Written, bytes_in, copy_adapter, require_adapter
from shared.cli.card_check import checked_card, told
from shared.cli.console import AsJson, Output, size, telling
from shared.configuration import read_settings
from shared.errors import BlobMissing, PartMissing, about
from shared.folders import appearing, is_whole
from shared.protocol.messages import PublishedAdapter
from shared.protocol.terms import FROZEN

adapters = typer.Typer(help="Use the adapter that this agent holds, also merged into a model.", no_args_is_help=True)

Out: TypeAlias = Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write.")]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace an older folder of the same kind.")]
Merged: TypeAlias = Annotated[bool, typer.Option("--merged", help="Write a whole model, not an adapter.")]

Folder: TypeAlias = Annotated[
    Path | None,
    typer.Argument(metavar="[FOLDER]", help="A PEFT directory with its card.json; else the one that the agent keeps."),
]


class Held(BaseModel):
    """The adapters that an agent holds: none, or the newest that was published."""

    adapters: tuple[PublishedAdapter, ...]
    model_config = FROZEN


@adapters.command("list")
def list_(*, config: AgentFile = None, as_json: AsJson = False) -> None:
    """Say which adapter this agent holds."""
    with telling(as_json=as_json) as output:
        published = _state(read_settings(Settings, config)).published
        held = Held(adapters=() if published is None else (published,))
        output.result(held, *(f"round {each.round} of run {each.run_id}, {each.digest}" for each in held.adapters))
        if published is None:
            output.note(NOTHING)


@adapters.command()
def export(
    *,
    out: Out,
    merged: Merged = False,
    force: Force = False,
    config: AgentFile = None,
    as_json: AsJson = False,
) -> None:
    """Write the adapter as a PEFT directory or, with --merged, together with the SLM as a whole model."""
    with telling(as_json=as_json) as output:
        settings = read_settings(Settings, config)
        state = _state(settings)
        with appearing(out, marker="config.json" if merged else CONFIG, force=force) as folder:
            adapter = folder / "adapter" if merged else folder
            adapter.mkdir(exist_ok=True)
            _copy(state, adapter)
            if merged:
                _merge(settings.slm, adapter, folder, output)
                shutil.rmtree(adapter)
        written = Written(folder=out, bytes=bytes_in(out), merged_with=settings.slm if merged else None)
        output.result(written, f"{out} ({size(written.bytes)})")


@adapters.command()
def verify(folder: Folder = None, *, config: AgentFile = None, as_json: AsJson = False) -> None:
    """Check that the adapter is what its model card says, from the files alone; the coordinator is not asked."""
    with telling(as_json=as_json) as output:
        settings = read_settings(Settings, config)
        found = folder or _state(settings).peft_folder
        _, checked = checked_card(found, operator_key=settings.operator_key)
        output.result(checked, *told(checked, found))


NOTHING = "this agent holds no adapter yet; it gets one with the first published round"


def _state(settings: Settings) -> StateFolder:
    with about("state_dir"):
        require_readable(settings.state_dir)  # StateFolder would make it
    return StateFolder(settings.state_dir)


def _copy(state: StateFolder, into: Path) -> None:
    """Copy the adapter, whole, from under an agent that may be running."""
    published = state.published
    if published is None:
        raise BlobMissing(NOTHING)
    copy_adapter(require_adapter(state.peft_folder), into)
    if not is_whole(into / WEIGHTS, published.digest):
        raise BlobMissing("the agent got a newer adapter just now, or its file is damaged: try again")


def _merge(slm: str, adapter: Path, into: Path, output: Output) -> None:
    try:
        from shared.ml.merge import merge  # noqa: PLC0415 - torch: no other command's
    except ImportError as error:
        raise PartMissing.of("agent", error.name) from None
    output.note(f"merging with {slm}")
    merge(slm, adapter, into, show_progress=output.shows_progress)
