"""``fedcollm doctor``: what is wrong with a coordinator, its worker or a run's terms, and what to do about it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from services.coordinator.certificates import hosts_of, read_certificate, serving_tls
from services.coordinator.cli.pages import all_members
from services.coordinator.cli.settings import OperatorSettings
from services.coordinator.presets import read_terms
from services.coordinator.principals import Role
from services.coordinator.settings import Settings as CoordinatorSettings
from services.coordinator.tokens import read_entries
from services.coordinator.worker.settings import Settings as WorkerSettings
from shared.cli.checks import folder, ownership, packages, port, private, threads, token
from shared.cli.console import AsJson, ExitCode, telling
from shared.cli.reachability import PATIENCE_SECONDS, reaching
from shared.configuration import Settings, read_settings
from shared.credentials import BearerToken
from shared.data.source import DataSource
from shared.egress import TrafficCount
from shared.errors import BlobMissing, ConfigurationError, NotFound, RemoteProblem, Unreachable
from shared.findings import Check, Finding, examine, failed, left_out, ok, summary, table, warning
from shared.folders import is_owned
from shared.key_file import read_key
from shared.loopback import is_here
from shared.protocol.identity import fingerprint
from shared.protocol.membership import MemberList, MemberState
from shared.protocol.messages import Accepted
from shared.protocol.terms import RunTerms
from shared.proxies import port as port_of
from shared.transport import Transport, open_transport
from shared.trust import ENDS_SOON

COORDINATOR_PACKAGES = (
    "alembic",
    "fastapi",
    "httptools",
    "plotly",
    "prometheus-client",
    "sqlalchemy",
    "uvicorn",
    "xxhash",
)
WORKER_PACKAGES = ("peft", "prometheus-client", "psutil", "pyarrow", "torch", "transformers")

# A blob that no coordinator holds: asking for it tells whether a worker's token is known, and changes nothing.
NO_BLOB = f"/v1/work/blobs/sha256:{'0' * 64}"

RENEW = "have a new one issued (`fedcollm tls issue`, or the CA that it is from), and start the coordinator again"

_File = Path | None


def doctor(
    *,
    config_dir: Annotated[
        Path, typer.Option("--config-dir", metavar="FOLDER", help="Where the four files below are looked for.")
    ] = Path(),
    coordinator: Annotated[_File, typer.Option(metavar="FILE", help="The coordinator's settings.")] = None,
    worker: Annotated[_File, typer.Option(metavar="FILE", help="The worker's settings.")] = None,
    operator: Annotated[_File, typer.Option(metavar="FILE", help="Where an operator's commands go.")] = None,
    run: Annotated[_File, typer.Option(metavar="FILE", help="The terms of a run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check coordinator, worker, operator and a run's terms, as far as they are here, and say what to do."""
    with telling(as_json=as_json) as output:
        named = {"coordinator": coordinator, "worker": worker, "operator": operator, "run": run}
        there = {name: config_dir / f"{name}.toml" for name in named}
        files = {name: file or (there[name] if there[name].exists() else None) for name, file in named.items()}
        if not any(files.values()):
            raise ConfigurationError(
                f"{config_dir.absolute()} has no coordinator.toml, worker.toml, operator.toml or run.toml: name the "
                "folder with --config-dir, or write them with `fedcollm init`"
            )
        with output.ending_at_once():  # the libraries of models import as they go, and keep Ctrl-C to themselves
            report = examine(checks(**files), output.busy)
        output.result(report, table(report.checks), summary(report))
        if report.failed:
            raise typer.Exit(ExitCode.FAILED)


def checks(*, coordinator: _File, worker: _File, operator: _File, run: _File) -> list[Check]:
    """Return the checks of what there are files of."""
    made: list[Check] = []
    central = working = operating = terms = None
    if coordinator is not None:
        central, read = _read(CoordinatorSettings, coordinator, "coordinator")
        made += [read, *(_of_coordinator(central) if central else ())]
    if worker is not None:
        working, read = _read(WorkerSettings, worker, "worker")
        made += [read, *(_of_worker(working, central) if working else ())]
    if operator is not None:
        operating, read = _read(OperatorSettings, operator, "operator")
        made += [read, *(_of_operator(operating, central, alone=not (coordinator or worker)) if operating else ())]
    if run is not None:
        terms, read = _read_terms(run)
        made += [read, *(_of_run(terms, operating, working) if terms else ())]
    return made


def _read(kind: type[Settings], file: Path, name: str) -> tuple[Settings | None, Check]:
    try:
        settings = read_settings(kind, file)
    except ConfigurationError as error:
        told = failed(str(error))
        return None, Check(name, lambda: told)
    return settings, Check(name, lambda: ok(str(file)))


def _read_terms(file: Path) -> tuple[RunTerms | None, Check]:
    try:
        terms = read_terms(file)
    except ConfigurationError as error:
        told = failed(str(error))
        return None, Check("run", lambda: told)
    return terms, Check("run", lambda: ok(f"{file}: {terms.rounds} rounds of {terms.llm} with {terms.slm}"))


def _of_coordinator(settings: CoordinatorSettings) -> Iterator[Check]:
    def listens(host: str, number: int, setting: str) -> Finding:
        return port(host, number, running=is_owned(settings.data_dir), setting=setting)

    yield Check("coordinator packages", lambda: packages(COORDINATOR_PACKAGES, extra="coordinator"))
    yield Check("data folder", lambda: folder(settings.data_dir))
    yield Check("coordinator process", lambda: ownership(settings.data_dir, "coordinator"), after=("data folder",))
    yield Check("principals file", lambda: _principals(settings.principals_file))
    if settings.tls_certificate_file is not None and settings.tls_key_file is not None:
        certificate, key = settings.tls_certificate_file, settings.tls_key_file
        yield Check("coordinator's certificate", lambda: _certificate(certificate, key))
    yield Check("public port", lambda: listens(settings.host, settings.port, "port"))
    yield Check("work port", lambda: listens(settings.work_host, settings.work_port, "work_port"))


def _of_worker(settings: WorkerSettings, central: CoordinatorSettings | None) -> Iterator[Check]:
    yield Check("worker packages", lambda: packages(WORKER_PACKAGES, extra="worker"))
    yield Check("cache folder", lambda: folder(settings.cache_dir))
    yield Check("worker process", lambda: ownership(settings.cache_dir, "worker"), after=("cache folder",))
    yield Check("token file", lambda: token(settings.token_file))
    yield Check("device", lambda: _device(settings.device), after=("worker packages",))
    yield Check("threads", lambda: threads(settings.threads))
    if central is not None:
        yield Check("worker's address", lambda: _same_place(settings.coordinator_url, central, "work_port"))
    if central is not None and not is_owned(central.data_dir):
        yield Check("work API", lambda: left_out("the coordinator does not run now: start it, and ask again"))
        return
    yield from _way(settings, "token", _ask_for_work)


def _of_operator(settings: OperatorSettings, central: CoordinatorSettings | None, *, alone: bool) -> Iterator[Check]:
    yield Check("operator's token file", lambda: token(settings.token_file))
    if settings.key_file is not None:
        key_file = settings.key_file
        yield Check("operator's key", lambda: _operators_key(key_file, settings, central))
    if central is not None:
        yield Check("operator's address", lambda: _same_place(settings.coordinator_url, central, "port"))
    if alone:  # on a machine of the operator's own
        yield from _way(settings, "operator's token", _ask_for_members)


def _way(
    settings: WorkerSettings | OperatorSettings, named: str, ask: Callable[[Transport], Awaitable[str]]
) -> list[Check]:
    """Return the checks of the way to the coordinator for somebody with a token."""
    return reaching(
        settings.coordinator_url,
        named=named,
        credential=lambda: BearerToken.read(settings.token_file),
        ca_file=settings.ca_file,
        insecure=settings.insecure,
        ledger=TrafficCount(),
        ask=ask,
    )


def _of_run(terms: RunTerms, operating: OperatorSettings | None, working: WorkerSettings | None) -> Iterator[Check]:
    if operating is not None:
        yield Check("cohort", lambda: _cohort(terms, operating), after=("operator's token file",))
    if working is None:
        return
    cache = working.digest_cache if working.cache_dir.is_dir() else None
    for name, model in (("LLM", terms.llm), ("SLM", terms.slm)):
        yield from _of_model(name, model, terms.training.max_tokens, cache)
    yield Check("tokenizer", lambda: _same_tokenizer(terms), after=("LLM", "SLM"))
    yield Check("auxiliary set", lambda: _data(working.auxiliary, terms), after=("SLM",))
    yield Check("validation set", lambda: _data(working.validation, terms), after=("SLM",))
    yield Check("separate sets", lambda: _no_overlap(terms, working), after=("auxiliary set", "validation set"))
    yield Check(
        "memory",
        lambda: _memory(terms, working),
        after=("LLM", "SLM", "auxiliary set", "validation set", "device"),
    )


def _of_model(name: str, model: str, max_tokens: int, cache: Path | None) -> Iterator[Check]:
    yield Check(name, lambda: _base_model(model), after=("worker packages",))
    yield Check(f"{name} context", lambda: _context(model, max_tokens), after=(name,))
    yield Check(f"{name} weights", lambda: _weights(model, cache), after=(name,))


# What needs torch is imported by the check itself: that takes seconds, and torch may not be installed.


def _device(name: str) -> Finding:
    from shared.ml.checks import device

    return device(name)


def _base_model(model: str) -> Finding:
    from shared.ml.checks import base_model

    return base_model(model)


def _context(model: str, max_tokens: int) -> Finding:
    from shared.ml.checks import context

    return context(model, max_tokens)


def _weights(model: str, cache: Path | None) -> Finding:
    from shared.ml.checks import weights

    return weights(model, cache)


def _same_tokenizer(terms: RunTerms) -> Finding:
    from shared.ml.checks import same_tokenizer

    return same_tokenizer(terms.llm, terms.slm)


def _data(source: DataSource, terms: RunTerms) -> Finding:
    from shared.ml.checks import data

    return data(source, terms.task, terms.slm, max_tokens=terms.training.max_tokens)


def _no_overlap(terms: RunTerms, working: WorkerSettings) -> Finding:
    from shared.ml.checks import no_overlap

    return no_overlap(working.auxiliary, working.validation, terms.task)


def _memory(terms: RunTerms, working: WorkerSettings) -> Finding:
    from shared.ml.checks import memory_to_cotune

    return memory_to_cotune(
        terms,
        working.auxiliary,
        working.validation,
        dtype=working.dtype,
        gradient_checkpointing=working.gradient_checkpointing,
        device=working.device,
    )


def _certificate(file: Path, key: Path) -> Finding:
    serving_tls(file, key)
    certificate = read_certificate(file)
    until = certificate.not_valid_after_utc
    detail = f"{file}: for {', '.join(hosts_of(certificate))}, until {until:%Y-%m-%d}"
    if until < datetime.now(UTC):
        return failed(detail, RENEW)
    if until < datetime.now(UTC) + ENDS_SOON:
        return warning(detail, RENEW)
    return private(key, detail)


def _principals(file: Path) -> Finding:
    entries = read_entries(file)
    count = Counter(entry.role for entry in entries.values())
    detail = f"{file}: {', '.join(_count(count[role], role) for role in Role if count[role]) or 'nobody'}"
    missing = [role for role in (Role.OPERATOR, Role.WORKER) if not count[role]]
    if missing:
        return warning(f"{detail}; no {', no '.join(missing)}", "a run needs one of each: add them with a token each")
    ending = [name for name, entry in entries.items() if entry.not_after < datetime.now(UTC) + ENDS_SOON]
    if ending:
        return warning(
            f"{detail}; within {ENDS_SOON.days} days the tokens of {', '.join(ending)} end, or have ended",
            "give each a new one (fedcollm tokens issue NAME --role ROLE --force)",
        )
    return private(file, detail)


def _count(count: int, role: Role) -> str:
    return f"{count} {role}{'s' if count > 1 else ''}"


def _same_place(url: str, central: CoordinatorSettings, setting: str) -> Finding:
    """Compare an address of this machine with what the coordinator will be here: its port, and whether it has TLS."""
    there, number = urlsplit(url), getattr(central, setting)
    if not is_here(there.hostname or ""):
        return ok(url)
    if number not in {0, port_of(there)}:  # 0 is any that is free
        return failed(
            f"{url} is this machine, where the coordinator's {setting} is {number}",
            f"correct coordinator_url, or {setting} in coordinator.toml",
        )
    scheme = "http" if central.tls_certificate_file is None else "https"
    if there.scheme != scheme:
        return failed(f"{url} is this machine, where the coordinator speaks {scheme}", "correct coordinator_url")
    return ok(url)


def _operators_key(file: Path, settings: OperatorSettings, central: CoordinatorSettings | None) -> Finding:
    """Check that the operator's key is one, nobody else's to read, and the one that the coordinator knows."""
    key = read_key(file)
    detail = f"{file}, fingerprint {fingerprint(key.public)}"
    if central is not None and (central.operator_key, central.federation) != (key.public, settings.federation):
        return failed(
            f"{detail}, of {settings.federation}: coordinator.toml is of {central.federation}, operated with "
            f"{fingerprint(central.operator_key)}",
            "correct federation and key_file in operator.toml, or federation and operator_key in coordinator.toml",
        )
    return private(file, detail)


def _cohort(terms: RunTerms, operating: OperatorSettings) -> Finding:
    """Compare how many agents are members with how many a run wants."""
    try:
        found = asyncio.run(_agents(operating)).agents
    except Unreachable:
        return left_out("the coordinator, which knows the members, does not answer now: start it, and ask again")
    members = sum(one.state is MemberState.APPROVED for one in found)
    cohort = terms.cohort
    detail = f"{cohort.min_count} to {cohort.max_count} updates a round, of {_count(members, Role.AGENT)}"
    if pending := [one.name for one in found if one.state is MemberState.PENDING]:
        detail = f"{detail}; {', '.join(pending)} waiting to be approved"
    if cohort.min_count > members:
        return warning(detail, "let more agents in (`fedcollm agents`), or lower cohort.min_count: no round closes now")
    if cohort.max_count > members:
        return warning(detail, f"lower cohort.max_count to {members}: each round would wait for its min_seconds")
    return ok(detail)


async def _agents(operating: OperatorSettings) -> MemberList:
    async with open_transport(
        operating.coordinator_url,
        BearerToken.read(operating.token_file),
        TrafficCount(),
        patience_seconds=PATIENCE_SECONDS,
        ca_file=operating.ca_file,
        insecure=operating.insecure,
    ) as transport:
        return await all_members(transport)


async def _ask_for_members(transport: Transport) -> str:
    found = (await all_members(transport)).agents
    return f"as an operator's, by whom {_count(len(found), Role.AGENT)} {'was' if len(found) == 1 else 'were'} invited"


async def _ask_for_work(transport: Transport) -> str:
    try:
        await transport.call("GET", NO_BLOB, Accepted)
    except RemoteProblem as problem:
        if problem.code not in {NotFound.code, BlobMissing.code}:
            raise
    return "as a worker's"
