"""``fedcollm-agent init``: write the agent's settings, after a few questions, and enrol it with its invitation."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from services.client_agent.cli.enrol import Enrolled, enrolled_lines, enrolled_with
from services.client_agent.enrolment import read_invitation
from services.client_agent.settings import Settings
from shared.cli.checks import note_taken
from shared.cli.commented_toml import commented_toml
from shared.cli.console import AsJson, Output, SpeakInsecurely, telling
from shared.cli.data_questions import DataQuestions
from shared.cli.files_written import as_written, require_free, write_text
from shared.cli.questions import Questions, model, typed
from shared.configuration import read_settings
from shared.data.source import DataSource
from shared.devices import DeviceName
from shared.errors import InvitationInvalid, TransportError
from shared.protocol.membership import Invitation
from shared.protocol.terms import FROZEN
from shared.trust import require_encryption

HEAD = """Settings of a FedCoLLM agent, written by `fedcollm-agent init`.

What is commented out has the value that is shown. Relative paths start at this file's folder.
Each can be set in the environment too, which wins: slm as FEDCOLLM_AGENT_SLM, and path under [data]
as FEDCOLLM_AGENT_DATA__PATH.
"""


class Written(BaseModel):
    """What `init` wrote, and who the agent is."""

    files: tuple[Path, ...]
    examples: int
    agent: Enrolled
    model_config = FROZEN


def _option(name: str, metavar: str, text: str) -> Any:  # noqa: ANN401 - what typer says it is
    return typer.Option(name, metavar=metavar, help=text)


def init(
    *,
    file: Annotated[Path, _option("--config", "FILE", "What is written.")] = Path("agent.toml"),
    invitation: Annotated[str | None, _option("--invitation", "FILE", "What the operator gave you.")] = None,
    insecure: SpeakInsecurely = False,
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
    """Write an agent's settings, after a few questions, make its key, and enrol it."""
    with telling(as_json=as_json) as output:
        require_free([file], force=force)
        questions = Questions(output, asking=not (yes or as_json))
        examples = DataQuestions(questions, column or [])
        asked = "Invitation, the file that the operator gave you"
        brought, invited = questions.ask(
            asked, given=invitation, option="--invitation", check=partial(_invitation, insecure=insecure)
        )
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
        # Named after the settings, because several agents may have theirs in one folder.
        key_file, ca_file = file.with_suffix(".key"), file.with_suffix(".ca.pem")
        picked = questions.ask("Device", given=device, option="--device", check=typed(DeviceName), default="auto")
        values = {
            "coordinator_url": invited.coordinator_url,
            "name": invited.name,
            "federation": invited.federation,
            "operator_key": invited.operator_key,
            "identity_key_file": as_written(key_file, file.parent),
            "ca_file": as_written(ca_file, file.parent) if invited.ca_certificate else None,
            "state_dir": as_written(state, file.parent),
            "slm": _named(Path(base), file.parent) if Path(base).is_dir() else base,
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
        text, written = commented_toml(Settings, values, head=HEAD), [file, key_file]
        if invited.ca_certificate:
            write_text(ca_file, invited.ca_certificate)
            written.append(ca_file)
        write_text(file, text)
        enrolled = _enrolled(file, brought, invited, output)
        _tell(output, Written(files=tuple(written), examples=private.count, agent=enrolled), file)


def _named(model: Path, folder: Path) -> str:
    """Return a model's folder as settings in ``folder`` name it: never so that a hub could be meant if it goes."""
    written = as_written(model, folder)
    return str(written) if written.is_absolute() else f"./{written}"


def _written(source: DataSource, folder: Path) -> dict[str, Any]:
    """Return what of a data source stands in a file of settings in ``folder``."""
    return source.model_dump(exclude_unset=True) | {"path": as_written(source.path, folder)}


def _invitation(answer: str, *, insecure: bool) -> tuple[Path, Invitation]:
    """Check that an answer is an invitation to where nothing is sent in the clear, and return both."""
    file = Path(answer).expanduser()
    invitation = read_invitation(file)
    require_encryption(invitation.coordinator_url, insecure=insecure)
    return file, invitation


def _enrolled(file: Path, brought: Path, invitation: Invitation, output: Output) -> Enrolled:
    """Enrol the agent whose settings have been written; if nobody answers, that is what is left to do."""
    try:
        return enrolled_with(read_settings(Settings, file), invitation, output)
    except TransportError as error:
        again = "NEW" if error.code == InvitationInvalid.code else brought
        output.note(f"{file} is written; what is left is `fedcollm-agent enrol --invitation {again} --config {file}`")
        raise


def _tell(output: Output, written: Written, file: Path) -> None:
    output.result(
        written,
        *(f"wrote {path}" for path in written.files),
        *enrolled_lines(written.agent),
        f"next: fedcollm-agent doctor --config {file}    says whether all is well",
        f"      fedcollm-agent run --config {file}       takes part in runs",
    )
