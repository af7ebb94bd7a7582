"""``fedcollm init``: write what coordinator, worker and operator need, their tokens and key, and a run's terms."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings

from services.coordinator.certificates import read_certificate, sha256_of
from services.coordinator.cli.settings import OperatorSettings
from services.coordinator.cli.tls import CA_FILE, CERTIFICATE, KEY, parse_hosts, write_authority
from services.coordinator.cli.tls import FILES as TLS_FILES
from services.coordinator.presets import PRESETS, preset_terms
from services.coordinator.principals import Role
from services.coordinator.settings import Settings as CoordinatorSettings
from services.coordinator.tokens import issue_all
from services.coordinator.worker.settings import Settings as WorkerSettings
from shared.cli.checks import note_taken
from shared.cli.commented_toml import commented_toml
from shared.cli.console import AsJson, Output, telling
from shared.cli.data_questions import DataQuestions
from shared.cli.files_written import as_written, require_free, write_private, write_text
from shared.cli.questions import Questions, model, typed
from shared.data.proposal import Kind
from shared.data.source import DataSource
from shared.errors import ConfigurationError
from shared.key_file import keep_key, key_of
from shared.ml.checkpoint import base_config, context_length
from shared.protocol.identity import fingerprint
from shared.protocol.names import PrincipalName
from shared.protocol.terms import FROZEN, SMALLEST_COHORT, CohortTerms, Count, RunTerms

HEAD = """Settings of a FedCoLLM {of}, written by `fedcollm init`.

What is commented out has the value that is shown. Relative paths start at this file's folder.
Each can be set in the environment too, which wins: its name in capitals, after {prefix}.
"""
TERMS_HEAD = """Terms of a run, written by `fedcollm init`: `fedcollm runs start RUN --terms run.toml` makes the run.

They are frozen once it is made. What is commented out has the value that is shown.
"""

USUAL_PRESET = "smollm2"
HOUR, DAY = 3600.0, 86_400.0

FILES = ("coordinator.toml", "worker.toml", "operator.toml", "run.toml", "principals.json")

# For a coordinator that other machines reach.
TLS = "tls"
SERVING = {
    "host": "0.0.0.0",  # noqa: S104 - with TLS
    "tls_certificate_file": f"{TLS}/{CERTIFICATE}",
    "tls_key_file": f"{TLS}/{KEY}",
}
TRUSTING = {"ca_file": f"{TLS}/{CA_FILE}"}


class Written(BaseModel):
    """What `init` wrote; ``tokens`` says which file goes to whom."""

    files: tuple[Path, ...]
    tokens: dict[str, Path]
    model_config = FROZEN


def _option(name: str, metavar: str, text: str) -> Any:  # noqa: ANN401 - what typer says it is
    return typer.Option(name, metavar=metavar, help=text)


def init(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where everything is written.")] = Path(),
    *,
    federation: Annotated[str | None, _option("--federation", "ID", "What the federation is called.")] = None,
    agents: Annotated[str | None, _option("--agents", "COUNT", "How many agents take part in a round.")] = None,
    preset: Annotated[str | None, _option("--preset", "NAME", "What terms and models begin with.")] = None,
    llm: Annotated[str | None, _option("--llm", "MODEL", "The LLM: a folder, or a hub id.")] = None,
    slm: Annotated[str | None, _option("--slm", "MODEL", "The SLM: a folder, or a hub id.")] = None,
    auxiliary: Annotated[str | None, _option("--auxiliary", "FILE", "The examples to co-tune on.")] = None,
    validation: Annotated[str | None, _option("--validation", "FILE", "The examples to evaluate on.")] = None,
    column: Annotated[
        list[str] | None,
        _option("--column", "SETTING=COLUMN", "What a column holds, like answer=gold or choices=A,B,C; repeatable."),
    ] = None,
    data_dir: Annotated[str | None, _option("--data-dir", "FOLDER", "Where the coordinator keeps its state.")] = None,
    port: Annotated[str | None, _option("--port", "PORT", "For agents and operators.")] = None,
    work_port: Annotated[str | None, _option("--work-port", "PORT", "For workers.")] = None,
    host: Annotated[
        list[str] | None,
        _option(
            "--host", "HOST", "Where other machines reach the coordinator, by TLS with a CA that is made; repeatable."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing, and take defaults.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is there, tokens too, but not the operator's key.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write what coordinator, worker and operator need, with their tokens and the operator's key."""
    with telling(as_json=as_json) as output:
        reached = parse_hosts(host or [])
        serving, trusting = (SERVING, TRUSTING) if reached else ({}, {})
        files = [folder / name for name in FILES] + [folder / TLS / name for name in TLS_FILES if reached]
        require_free(files, force=force)
        questions = Questions(output, asking=not (yes or as_json))
        examples = DataQuestions(questions, column or [])
        key_file = folder / "operator.key"
        key = key_of(key_file)
        called = questions.ask(
            "Name of the federation",
            given=federation,
            option="--federation",
            check=_name,
            default=f"federation-{fingerprint(key.public)[:4]}",
        )
        count = questions.ask("How many agents", given=agents, option="--agents", check=_count, default="4")
        begun = questions.ask(
            f"Preset, whose rounds, rates and models run.toml begins with:\n{', '.join(PRESETS)}",
            given=preset,
            option="--preset",
            check=preset_terms,
            default=USUAL_PRESET,
        )
        large = questions.ask("LLM, a folder or a hub id", given=llm, option="--llm", check=_model, default=begun.llm)
        small = questions.ask("SLM, of the same family", given=slm, option="--slm", check=_model, default=begun.slm)
        learnt = examples.ask("the auxiliary examples", given=auxiliary, option="--auxiliary")
        measured = examples.ask("the validation examples", given=validation, option="--validation")
        state = questions.ask(
            "Folder for the coordinator's state",
            given=data_dir,
            option="--data-dir",
            check=Path,
            default=str(folder / "coordinator-state"),
        )
        public = questions.ask("Port for agents", given=port, option="--port", check=_port, default="8440")
        work = questions.ask("Port for workers", given=work_port, option="--work-port", check=_port, default="8441")

        note_taken(output, {"--port": public, "--work-port": work})
        tokens, principals = issue_all({"operator": Role.OPERATOR, "worker": Role.WORKER})
        handed = {name: folder / "tokens" / name for name in tokens}
        coordinator = _settings(
            CoordinatorSettings,
            {
                "data_dir": as_written(state, folder),
                "principals_file": "principals.json",
                "federation": called,
                "operator_key": key.public,
                "port": public,
                "work_port": work,
                **serving,
            },
        )
        worker = _settings(
            WorkerSettings,
            {
                "coordinator_url": _here(work, tls=bool(reached)),
                "token_file": "tokens/worker",
                "cache_dir": "worker-cache",
                **trusting,
                "auxiliary": _source(learnt.source, folder),
                "validation": _source(measured.source, folder),
            },
        )
        operator = _settings(
            OperatorSettings,
            {
                "coordinator_url": _here(public, tls=bool(reached)),
                "agents_url": _there(public, reached[0]) if reached else None,
                "token_file": "tokens/operator",
                "federation": called,
                "key_file": "operator.key",
                **trusting,
            },
        )
        terms = _terms(begun, llm=_base(large), slm=_base(small), kind=learnt.kind, agents=count)
        # Of these terms several runs may be made: each is called by its own id.
        run = commented_toml(RunTerms, terms.model_dump(exclude_none=True, exclude={"name"}), head=TERMS_HEAD)
        for name, text in (("coordinator", coordinator), ("worker", worker), ("operator", operator), ("run", run)):
            write_text(folder / f"{name}.toml", text)
        keep_key(key_file, key)
        # What the coordinator keeps of them, and each token in a file of its own to hand out.
        write_private(folder / "principals.json", principals.model_dump_json(indent=2))
        for name, file in handed.items():
            write_private(file, tokens[name])
        if reached:
            write_authority(folder / TLS, reached)
        _tell(output, folder, Written(files=(*files, key_file), tokens=handed), _reached_at(public, reached, folder))


def _terms(begun: RunTerms, *, llm: str, slm: str, kind: Kind, agents: int) -> RunTerms:
    """Return a preset's terms for these models and agents: all but one agent are enough after an hour.

    Fewer than three agents could not hide anything from each other: their updates are readable, and the file says so.
    """
    contexts = [context for context in (_context(llm), _context(slm)) if context is not None]
    least = max(min(agents, SMALLEST_COHORT), agents - 1)
    return begun.model_copy(
        update={
            "llm": llm,
            "slm": slm,
            "seed": secrets.randbelow(2**31),
            "task": begun.task.model_copy(update={"kind": kind}),
            "training": begun.training.model_copy(update={"max_tokens": min([begun.training.max_tokens, *contexts])}),
            "cohort": CohortTerms(min_count=least, max_count=agents, min_seconds=HOUR, max_seconds=DAY),
            "aggregation": "SecureAggregation" if agents >= SMALLEST_COHORT else "PlaintextAggregation",
        }
    )


def _model(answer: str) -> str:
    """Check a model, its configuration as well: here it is asked again, and later it would end everything."""
    name = model(answer)
    _context(name)
    return name


def _context(name: str) -> int | None:
    """Return how many tokens a model in a folder takes, where its configuration says so; no hub is asked."""
    return context_length(base_config(Path(name))) if Path(name).is_dir() else None


def _settings(kind: type[BaseSettings], values: dict[str, object]) -> str:
    prefix = str(kind.model_config["env_prefix"])
    return commented_toml(kind, values, head=HEAD.format(of=prefix.split("_")[1].lower(), prefix=prefix))


def _source(source: DataSource, folder: Path) -> dict[str, object]:
    return source.model_dump(exclude_unset=True) | {"path": as_written(source.path, folder)}


def _base(name: str) -> str:
    """Return a model as terms name it: whole, because terms are read where the worker is started."""
    return str(Path(name).absolute()) if Path(name).is_dir() else name


def _name(answer: str) -> str:
    try:
        return str(TypeAdapter(PrincipalName).validate_python(answer))
    except ValidationError:
        raise ConfigurationError(
            "a name begins with a letter or digit and has up to 64 letters, digits, dots, dashes and underscores"
        ) from None


def _count(answer: str) -> int:
    return int(typed(Count)(answer))


def _port(answer: str) -> int:
    return int(typed(Annotated[int, Field(ge=1, le=65535)])(answer))


def _here(port: int, *, tls: bool) -> str:
    """Return the address for workers and operators on the coordinator's own machine."""
    return f"http{'s' if tls else ''}://127.0.0.1:{port}"


def _there(port: int, host: str) -> str:
    """Return the address for agents on other machines."""
    return f"https://{f'[{host}]' if ':' in host else host}:{port}"


def _reached_at(port: int, hosts: Sequence[str], folder: Path) -> str:
    if not hosts:
        here = _here(port, tls=False)
        return f"agents on this machine reach the coordinator at {here}; others need TLS: --host, or docs/deployment.md"
    authority = read_certificate(folder / TLS / CA_FILE)
    return (
        f"invitations say that agents reach the coordinator at {_there(port, hosts[0])}, and trust {TLS}/{CA_FILE}\n"
        f"(SHA-256 {sha256_of(authority)}); it listens on all addresses of its machine"
    )


def _tell(output: Output, folder: Path, written: Written, reached_at: str) -> None:
    inside = "" if folder == Path() else f"cd {folder}\n      "
    output.result(
        written,
        *(f"wrote {file}" for file in (*written.files, *written.tokens.values())),
        f"next: {inside}fedcollm doctor                               says whether all is well",
        "      fedcollm coordinator --config coordinator.toml",
        "      fedcollm worker --config worker.toml          in another terminal",
        "      fedcollm agents invite AGENT                  for each organisation",
        "      fedcollm runs start first --terms run.toml    once agents are there",
        "operator.key says who is a member and what a run is: keep a copy, where nobody else can read it",
        reached_at,
    )
