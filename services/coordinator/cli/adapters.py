"""``fedcollm adapters``: what runs made, as PEFT directories and as merged models."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, TypeAlias

import typer

from services.coordinator.cli.audit_logs import exported_entries, exported_head
from services.coordinator.cli.connection import Operator, RunName, operating, run_id
from services.coordinator.cli.report import NO_ADAPTERS, artefacts_table
from shared.adapter_folder import (
    CONFIG,
    WEIGHTS,
    Written,
    bytes_in,
    copy_adapter,
    named_base,
    require_adapter,
    require_short_header,
    write_adapter_config,
    write_card,
)
from shared.cli.card_check import checked_card, told
from shared.cli.console import Output, size
from shared.errors import ConfigurationError, NotFound, PartMissing
from shared.folders import appearing
from shared.protocol.audit import Chain, require_later
from shared.protocol.card import SignedCard
from shared.protocol.lora import read_adapter_config
from shared.protocol.messages import Artefact, ArtefactList

adapters = typer.Typer(help="Fetch the adapters that runs made, also merged into a model.", no_args_is_help=True)

Name: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="slm-adapter or llm-adapter.")]
Source: TypeAlias = Annotated[
    str, typer.Argument(metavar="SOURCE", help="RUN/NAME at the coordinator, or a PEFT directory.")
]
Out: TypeAlias = Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write.")]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace an older folder of the same kind.")]
Merged: TypeAlias = Annotated[bool, typer.Option("--merged", help="Write a whole model, not an adapter.")]
Base: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="MODEL",
        help="The base model, a Hugging Face directory or id; else the one that the adapter names.",
    ),
]

Folder: TypeAlias = Annotated[Path, typer.Argument(metavar="FOLDER", help="A PEFT directory with its card.json.")]
OperatorKey: TypeAlias = Annotated[
    str | None,
    typer.Option("--operator-key", metavar="KEY", help="The operator's public key; else that of this machine's key."),
]
AuditCopy: TypeAlias = Annotated[
    Path | None,
    typer.Option("--audit-log", metavar="FILE", help="An exported audit log, which must have the card's entry."),
]


@adapters.command("list")
@operating
def list_(operator: Operator, run: RunName) -> None:
    """List the adapters of a run: the newest of each model."""
    found = operator.ask("GET", f"/v1/runs/{run}/artefacts", ArtefactList)
    operator.output.result(found, artefacts_table(found.artefacts))


@adapters.command()
@operating
def pull(operator: Operator, run: RunName, name: Name, *, out: Out, force: Force = False) -> None:
    """Fetch an adapter as a PEFT directory."""
    with appearing(out, marker=CONFIG, force=force) as folder:
        asyncio.run(_fetch(operator, run, name, folder))
    _tell(operator.output, Written(folder=out, bytes=bytes_in(out)))


@adapters.command()
@operating
def export(
    operator: Operator,
    source: Source,
    *,
    out: Out,
    merged: Merged = False,
    base: Base = None,
    force: Force = False,
) -> None:
    """Write an adapter as a PEFT directory or, with --merged, together with its base model as a whole model."""
    if base is not None and not merged:
        raise ConfigurationError("--base is for --merged: a PEFT directory holds the adapter alone")
    with (
        appearing(out, marker="config.json" if merged else CONFIG, force=force) as folder,
        _adapter(operator, source) as adapter,
    ):
        if merged:
            base = base or named_base(adapter)
            _merge(base, adapter, folder, operator.output)
        else:
            copy_adapter(adapter, folder)
    _tell(operator.output, Written(folder=out, bytes=bytes_in(out), merged_with=base))


@adapters.command()
@operating
def verify(
    operator: Operator, folder: Folder, *, operator_key: OperatorKey = None, audit_log: AuditCopy = None
) -> None:
    """Check that an adapter is what its model card says, from the files alone; no coordinator is asked."""
    signed, checked = checked_card(folder, operator_key=operator_key or operator.signer().key.public)
    lines = list(told(checked, folder))
    if audit_log is not None:
        head = exported_head(audit_log)
        require_later(head, signed.card.head)
        chain = Chain(signed.card.head.head, head.head)
        for entry in exported_entries(audit_log):
            chain.append(entry)
        chain.require_whole()
        lines.append(f"the audit log in {audit_log} has this entry")
    operator.output.result(checked, *lines)


@contextmanager
def _adapter(operator: Operator, source: str) -> Iterator[Path]:
    """Give the PEFT directory that ``source`` is, or one that is fetched and gone afterwards."""
    if Path(source).is_dir():
        yield require_adapter(Path(source))
        return
    run, _, name = source.partition("/")
    if not (run and name):
        raise ConfigurationError(
            f"{source!r} is no PEFT directory, nor an adapter of a run like demo/slm-adapter: "
            "`fedcollm adapters list RUN` names them"
        )
    with TemporaryDirectory() as folder:
        asyncio.run(_fetch(operator, run_id(run), name, Path(folder)))
        yield Path(folder)


async def _fetch(operator: Operator, run: str, name: str, into: Path) -> None:
    """Fetch an adapter into a folder, as a PEFT directory."""
    async with operator.connected() as transport:
        listed = await transport.call("GET", f"/v1/runs/{run}/artefacts", ArtefactList)
        artefact = _named(name, run, listed.artefacts)
        card = await transport.call("GET", f"/v1/runs/{run}/rounds/{artefact.round}/card", SignedCard)
        with operator.output.bytes_bar() as bar:
            task = bar.add_task(f"{run}/{name}", total=artefact.bytes)
            await transport.download(
                f"/v1/runs/{run}/artefacts/{name}",
                into / WEIGHTS,
                digest=artefact.digest,
                size=artefact.bytes,
                on_length=lambda length: bar.update(task, completed=length),
            )
    require_short_header(into / WEIGHTS)
    read_adapter_config(artefact.adapter_config)
    write_adapter_config(into, artefact.adapter_config)
    write_card(into, card, artefact.name)


def _named(name: str, run: str, artefacts: Sequence[Artefact]) -> Artefact:
    for artefact in artefacts:
        if artefact.name == name:
            return artefact
    known = ", ".join(artefact.name for artefact in artefacts)
    raise NotFound(f"run {run} has no adapter {name!r}: " + (f"it has {known}" if known else NO_ADAPTERS))


def _merge(base: str, adapter: Path, into: Path, output: Output) -> None:
    try:
        from shared.ml.merge import merge  # noqa: PLC0415 - torch: no other command's
    except ImportError as error:
        raise PartMissing.of("worker", error.name) from None
    output.note(f"merging with {base}")
    merge(base, adapter, into, show_progress=output.shows_progress)


def _tell(output: Output, written: Written) -> None:
    output.result(written, f"{written.folder} ({size(written.bytes)})")
