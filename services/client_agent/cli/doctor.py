"""``fedcollm-agent doctor``: what is wrong with this installation, and what to do about it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import typer

from services.client_agent.audit_heads import AuditHeads
from services.client_agent.cli.enrol import code_of
from services.client_agent.cli.status import AgentFile
from services.client_agent.coordinator_client import CoordinatorClient
from services.client_agent.egress_ledger import EgressLedger
from services.client_agent.settings import Settings
from shared.cli.checks import folder, ownership, packages, port, private, threads
from shared.cli.console import AsJson, ExitCode, telling
from shared.cli.reachability import PATIENCE_SECONDS, reaching
from shared.configuration import read_settings
from shared.credentials import SignedRequests
from shared.data.proposal import likely_kind
from shared.data.source import DataSource
from shared.egress import TrafficCount
from shared.errors import ConfigurationError, PolicyRefused
from shared.findings import Check, Finding, Verdict, examine, failed, ok, summary, table, warning
from shared.folders import is_owned
from shared.key_file import read_key
from shared.protocol.manifest import Manifest
from shared.protocol.terms import LoraTerms, TaskTerms
from shared.transport import Transport, open_transport

PACKAGES = (
    "fastapi",
    "httptools",
    "jinja2",
    "peft",
    "prometheus-client",
    "psutil",
    "pyarrow",
    "torch",
    "transformers",
    "uvicorn",
)

# What the presets train at once; a run says itself.
USUAL_BATCH = 4


def doctor(*, config: AgentFile = None, as_json: AsJson = False) -> None:
    """Check this agent's installation, and say what to do."""
    with telling(as_json=as_json) as output:
        with output.ending_at_once():  # the libraries of models import as they go, and keep Ctrl-C to themselves
            report = examine(checks(config), output.busy)
        output.result(report, table(report.checks), summary(report))
        if report.failed:
            raise typer.Exit(ExitCode.FAILED)


def checks(config: Path | None) -> list[Check]:
    """Return the checks of an agent; without settings that can be used there is little to look at."""
    installed = Check("packages", lambda: packages(PACKAGES, extra="agent"))
    try:
        settings = read_settings(Settings, config)
    except ConfigurationError as error:
        told = failed(str(error))
        return [installed, Check("settings", lambda: told)]
    cache = settings.digest_cache if settings.state_dir.is_dir() else None
    evaluated = () if settings.evaluation is None else ("evaluation data",)
    return [
        installed,
        Check("settings", lambda: ok(str(config or "from the environment"))),
        Check("state folder", lambda: folder(settings.state_dir)),
        Check("agent", lambda: ownership(settings.state_dir, "agent"), after=("state folder",)),
        Check(
            "status port",
            lambda: port(
                settings.status_host,
                settings.status_port,
                running=is_owned(settings.state_dir),
                setting="status_port",
            ),
        ),
        Check("key file", lambda: _key(settings)),
        Check("audit log", lambda: _audit_log(settings.state_dir)),
        Check("SLM", lambda: _base_model(settings.slm), after=("packages",)),
        Check("SLM weights", lambda: _weights(settings.slm, cache), after=("SLM",)),
        Check("data", lambda: _data(settings.data, settings), after=("SLM",)),
        *_kept_apart(settings),
        Check("device", lambda: _device(settings.device), after=("packages",)),
        Check("memory", lambda: _memory(settings), after=("data", *evaluated, "device")),
        Check("threads", lambda: threads(settings.threads)),
        *reaching(
            settings.coordinator_url,
            named="key",
            credential=lambda: _signing(settings),
            ca_file=settings.ca_file,
            insecure=settings.insecure,
            ledger=_ledger(settings),
            ask=lambda transport: _wanted(_coordinator(settings, transport)),
        ),
        Check("run", lambda: _run(settings, cache), after=("key accepted", "SLM weights", "data", *evaluated)),
    ]


def _kept_apart(settings: Settings) -> Iterator[Check]:
    """Yield the checks of examples that are not to be trained on."""
    if (own := settings.evaluation) is not None:
        yield Check("evaluation data", lambda: _data(own, settings), after=("SLM",))
        yield Check("separate data", lambda: _no_overlap(own, settings), after=("data", "evaluation data"))
    if (held_out := settings.holdout) is not None:
        yield Check("hold-out", lambda: _data(held_out, settings), after=("SLM",))
        yield Check("separate hold-out", lambda: _no_overlap(held_out, settings), after=("data", "hold-out"))


# What needs torch is imported by the check itself: that takes seconds, and torch may not be installed.


def _base_model(slm: str) -> Finding:
    from shared.ml.checks import base_model

    return base_model(slm)


def _weights(slm: str, cache: Path | None) -> Finding:
    from shared.ml.checks import weights

    return weights(slm, cache)


def _device(name: str) -> Finding:
    from shared.ml.checks import device

    return device(name)


def _data(source: DataSource, settings: Settings) -> Finding:
    """Check examples as a run would read them, by the kind of task that they are probably for."""
    from shared.ml.checks import data

    return data(source, TaskTerms(kind=likely_kind(source)), settings.slm)


def _no_overlap(own: DataSource, settings: Settings) -> Finding:
    from shared.ml.checks import no_overlap

    return no_overlap(settings.data, own, TaskTerms(kind=likely_kind(settings.data)))


def _memory(settings: Settings) -> Finding:
    """Estimate what training takes, as long as no run says how, by terms as runs have them."""
    from shared.ml.checks import memory_to_train

    found = memory_to_train(
        settings.slm,
        settings.data,
        settings.evaluation,
        TaskTerms(kind=likely_kind(settings.data)),
        lora=LoraTerms(),
        batch_size=USUAL_BATCH,
        dtype=settings.dtype,
        gradient_checkpointing=settings.gradient_checkpointing,
        device=settings.device,
    )
    return ok(f"{found.detail} (for batches of {USUAL_BATCH})")


def _ledger(settings: Settings) -> EgressLedger:
    """Return the agent's own ledger: what the doctor asks leaves this machine too."""
    return EgressLedger(settings.state_dir, TrafficCount())


def _key(settings: Settings) -> Finding:
    """Check that the agent has a key, and nobody else; its operator approves it by the check code."""
    file = settings.identity_key_file
    return private(file, f"{file}, check code {code_of(settings, read_key(file))}")


def _audit_log(state_dir: Path) -> Finding:
    """Look whether the coordinator has ever shown this agent an audit log that cannot be the one that it knows."""
    found = AuditHeads(state_dir).contradiction
    if found is None:
        return ok("nothing contradicts what this agent was told of it")
    return warning(
        found.why, f"keep {state_dir}, tell the operator and the other organisations, and ask what was changed"
    )


def _signing(settings: Settings) -> SignedRequests:
    return SignedRequests(settings.name, read_key(settings.identity_key_file), settings.federation)


def _coordinator(settings: Settings, transport: Transport) -> CoordinatorClient:
    return CoordinatorClient(transport, federation=settings.federation, operator_key=settings.operator_key)


async def _wanted(coordinator: CoordinatorClient) -> str:
    wanted = await coordinator.wanted(None, wait_seconds=0)
    if wanted.assignment is None:
        return "as an agent's; nothing is wanted of it now"
    return f"as an agent's; round {wanted.assignment.round} of run {wanted.assignment.run_id} waits for its update"


def _run(settings: Settings, cache: Path | None) -> Finding:
    """Compare this machine with what the run that is going on expects."""
    from services.client_agent.lora_trainer import own_examples
    from shared.ml.checks import context, data, memory_to_train, other_model
    from shared.ml.models import load_tokenizer

    manifest = asyncio.run(_manifest(settings))
    if manifest is None:
        return ok("none that this agent could be compared with")
    try:
        settings.policy.require_run(manifest)
    except PolicyRefused as refusal:
        return failed(str(refusal), "this agent takes no part in it: tell the operator, or change [policy]")
    mismatch = other_model(
        settings.slm, tokenizer_digest=manifest.tokenizer_digest, base_digest=manifest.slm_digest, cache=cache
    )
    if mismatch is not None:
        return failed(
            f"run {manifest.run_id}: {mismatch}",
            "install the base model that the operator names: a copy of the same files, not one that was saved again",
        )
    terms = manifest.training
    context(settings.slm, terms.max_tokens)
    found = data(settings.data, manifest.task, settings.slm, max_tokens=terms.max_tokens)
    if found.verdict is not Verdict.OK:
        return found
    own = own_examples(settings.evaluation, load_tokenizer(settings.slm), manifest)
    room = memory_to_train(
        settings.slm,
        settings.data,
        settings.evaluation if own else None,
        manifest.task,
        lora=manifest.slm_lora,
        batch_size=terms.batch_size,
        max_tokens=terms.max_tokens,
        dtype=settings.dtype,
        gradient_checkpointing=settings.gradient_checkpointing,
        device=settings.device,
    )
    evaluated = f"; evaluates on {manifest.evaluation_examples} of {len(own)} examples" if own else ""
    return ok(f"{manifest.run_id}: its base model; {found.detail}{evaluated}; {room.detail}")


async def _manifest(settings: Settings) -> Manifest | None:
    async with open_transport(
        settings.coordinator_url,
        _signing(settings),
        _ledger(settings),
        patience_seconds=PATIENCE_SECONDS,
        ca_file=settings.ca_file,
        insecure=settings.insecure,
    ) as transport:
        coordinator = _coordinator(settings, transport)
        wanted = await coordinator.wanted(None, wait_seconds=0)
        known = wanted.assignment or wanted.published
        return None if known is None else await coordinator.manifest(known.run_id)
