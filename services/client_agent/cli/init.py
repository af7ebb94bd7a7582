"""``fedcollm-agent init``: write the agent's settings, after a few questions."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from services.client_agent.settings import Settings
from shared.access import beside, require_readable
from shared.cli.checks import note_taken
from shared.cli.commented_toml import commented_toml
from shared.cli.console import AsJson, Output, SpeakInsecurely, telling
from shared.cli.data_questions import DataQuestions
from shared.cli.files_written import as_written, require_free, write_private, write_text
from shared.cli.questions import Questions, model, typed
from shared.credentials import BearerToken, Token
from shared.data.source import DataSource
from shared.devices import DeviceName
from shared.errors import ConfigurationError, about
from shared.protocol.terms import FROZEN
from shared.transport import BaseUrl
from shared.trust import require_encryption

HEAD = """Settings of a FedCoLLM agent, written by `fedcollm-agent init`.

What is commented out has the value that is shown. Relative paths start at this file's folder.
Each can be set in the environment too, which wins: slm as FEDCOLLM_AGENT_SLM, and path under [data]
as FEDCOLLM_AGENT_DATA__PATH.
"""


class Written(BaseModel):
    """What `init` wrote."""

    files: tuple[Path, ...]
    examples: int
    model_config = FROZEN


def _option(name: str, metavar: str, text: str) -> Any:  # noqa: ANN401 - what typer says it is
    return typer.Option(name, metavar=metavar, help=text)


def init(
    *,
    file: Annotated[Path, _option("--config", "FILE", "What is written.")] = Path("agent.toml"),
    coordinator_url: Annotated[
        str | None, _option("--coordinator-url", "URL", "Where the coordinator listens.")
    ] = None,
    ca_file: Annotated[
        Path | None, _option("--ca-file", "FILE", "The coordinator's CA; no other is trusted then.")
    ] = None,
    insecure: SpeakInsecurely = False,
    token_file: Annotated[str | None, _option("--token-file", "FILE", "Holds the token.")] = None,
    slm: Annotated[str | None, _option("--slm", "MODEL", "The SLM: a folder, or a hub id.")] = None,
    data: Annotated[str | None, _option("--data", "FILE", "The private examples.")] = None,
    evaluation: Annotated[
        str | None, _option("--evaluation", "FILE", "Examples that are not trained on, for runs that evaluate on such.")
    ] = None,
    column: Annotated[
        list[str] | None,
        _option("--column", "SETTING=COLUMN", "What a column holds, like answer=gold or choices=A,B,C; repeatable."),
    ] = None,
    state_dir: Annotated[str | None, _option("--state-dir", "FOLDER", "Where the agent keeps its state.")] = None,
    device: Annotated[str | None, _option("--device", "NAME", "cpu, cuda, cuda:1, or auto.")] = None,
    status_port: Annotated[
        int | None, _option("--status-port", "PORT", "Of the status page; each agent of a machine needs its own.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing, and take defaults.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write an agent's settings, after a few questions."""
    with telling(as_json=as_json) as output:
        require_free([file], force=force)
        if ca_file is not None:
            with about("--ca-file"):
                require_readable(ca_file)

        def address(answer: str) -> str:
            url = typed(BaseUrl)(answer)
            require_encryption(url, insecure=insecure)
            return url

        questions = Questions(output, asking=not (yes or as_json))
        examples = DataQuestions(questions, column or [])
        url = questions.ask(
            "Address of the coordinator", given=coordinator_url, option="--coordinator-url", check=address
        )
        tokens, token = _token_file(questions, token_file, default=file.parent / "token")
        base = questions.ask("SLM, a folder or a hub id", given=slm, option="--slm", check=model)
        private = examples.ask("the private examples", given=data, option="--data")
        own = None
        if evaluation is not None:
            own = examples.ask("the evaluation examples", given=evaluation, option="--evaluation")
        state = questions.ask(
            "Folder for the agent's state",
            given=state_dir,
            option="--state-dir",
            check=Path,
            default=str(file.parent / "state"),
        )
        picked = questions.ask("Device", given=device, option="--device", check=typed(DeviceName), default="auto")
        values = {
            "coordinator_url": url,
            "token_file": as_written(tokens, file.parent),
            "ca_file": None if ca_file is None else as_written(ca_file, file.parent),
            "state_dir": as_written(state, file.parent),
            "slm": str(as_written(Path(base), file.parent)) if Path(base).is_dir() else base,
            "data": _written(private.source, file.parent),
            "device": picked,
        }
        if own is not None:
            values["evaluation"] = _written(own.source, file.parent)
        if insecure:
            values["insecure"] = True
        if status_port is not None:
            values["status_port"] = status_port
        note_taken(output, {"--status-port": status_port or Settings.model_fields["status_port"].default})
        settings, written = commented_toml(Settings, values, head=HEAD), [file]
        if token is not None:
            write_private(tokens, token)
            written.append(tokens)
        write_text(file, settings)
        _tell(output, Written(files=tuple(written), examples=private.count), file)


def _written(source: DataSource, folder: Path) -> dict[str, Any]:
    """Return what of a data source stands in a file of settings in ``folder``."""
    return source.model_dump(exclude_unset=True) | {"path": as_written(source.path, folder)}


def _token_file(questions: Questions, given: str | None, *, default: Path) -> tuple[Path, str | None]:
    """Return where the token lies, and the token itself where it is yet to be written there."""

    def check(answer: str) -> tuple[Path, str | None]:
        file = Path(answer).expanduser()
        if file.exists():
            BearerToken.read(file)
            return file, None
        if not questions.asking:
            hint = beside(file, otherwise="put the token that the operator gave you there")
            raise ConfigurationError(f"there is no token file {file}: {hint}")
        new = "it will be made"
        hint = new if file == default else beside(file, otherwise=new)
        token = questions.prompt(
            f"  There is no {file} yet: {hint}\n  Token to write there (not shown; Enter to name another file)",
            check=_pasted,
            default="",
            hidden=True,
        )
        if not token:
            raise ConfigurationError("then name the file that has it")
        return file, token

    return questions.ask(
        "File of the token that the operator gave you",
        given=given,
        option="--token-file",
        check=check,
        default=str(default),
    )


def _pasted(answer: str) -> str:
    """Check that a token looks like those of `fedcollm init`, and not like a path or whatever was typed unseen."""
    if answer and not re.fullmatch(r"[^\s/]{16,}", answer):
        raise ConfigurationError(
            "a token has 16 characters or more, without spaces and slashes: paste the line of the file that the "
            "operator gave you, or put that file there yourself"
        )
    return typed(Token)(answer)


def _tell(output: Output, written: Written, file: Path) -> None:
    output.result(
        written,
        *(f"wrote {path}" for path in written.files),
        f"next: fedcollm-agent doctor --config {file}    says whether all is well",
        f"      fedcollm-agent run --config {file}       takes part in runs",
    )
