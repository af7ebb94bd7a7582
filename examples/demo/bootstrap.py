"""Fill the volumes of the demo's containers: ``python -m examples.demo.bootstrap FOLDER``, run by docker-compose.yml.

    FOLDER/coordinator/   coordinator.toml principals.json tls/; the operator's operator.toml, .token, .key and run.toml
    FOLDER/worker/        worker.toml token ca.pem auxiliary.jsonl validation.jsonl models/
    FOLDER/prometheus/    token ca.pem, with which docs/monitoring.md has it read the coordinator's metrics
    FOLDER/agent-1/       agent.toml agent.key ca.pem data.jsonl evaluation.jsonl models/, and so on, a container each

What is there stays: a second call changes nothing, and after a call that was broken off the next one goes on. Only a
token that the coordinator does not know, and a CA and an operator's key that are not its own, because its folder was
lost and made anew, give way to those that are. ``examples.demo.members`` makes the agents members afterwards.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from examples.demo.preset import (
    AGENTS,
    AUXILIARY_ITEMS,
    EVALUATED_ITEMS,
    EVALUATION_ITEMS,
    ITEMS_AN_AGENT,
    MODELS,
    VALIDATION_ITEMS,
)
from examples.demo.task import write_demo_data
from services.coordinator.cli.tls import CA_FILE, FILES, write_authority
from services.coordinator.principals import Role
from services.coordinator.tokens import TokensFile, issue, read_entries, sha256
from shared.cli.files_written import write_private, write_text
from shared.key_file import keep_key, key_of
from shared.protocol.identity import IdentityKey

FEDERATION = "demo-only"
SEED = 1
MARK = "DEMO-ONLY"
TOKENS = {"operator": "coordinator/operator.token", "worker": "worker/token", "prometheus": "prometheus/token"}
ROLES = {"operator": Role.OPERATOR, "worker": Role.WORKER, "prometheus": Role.VIEWER}
CA_FILES = {name: f"{name}/{CA_FILE}" for name in ("worker", "prometheus", *AGENTS)}

# What the coordinator is called on the networks of docker-compose.yml; of the host, which has its port, on loopback.
HOSTS = ("coordinator", "work.coordinator")
AGENT_URL = "https://coordinator:8440"

WARNING = """\
The keys and tokens in this folder were made by `docker compose up` for the demo on one machine, the operator's too, and
the data is made up. One process has seen the secrets of all parties: use none of them for a federation that holds real
data.
"""

COORDINATOR = """\
data_dir = "state"
principals_file = "principals.json"
federation = "{federation}"
operator_key = "{operator_key}"
# Inside its container the coordinator listens on every network; docker-compose.yml publishes the port on loopback.
host = "0.0.0.0"
port = 8440
# A name that stands for the coordinator's address on the workers' network, so that only workers reach this port.
work_host = "work.coordinator"
work_port = 8441
tls_certificate_file = "tls/server.pem"
tls_key_file = "tls/server.key"
"""
OPERATOR = """\
coordinator_url = "https://127.0.0.1:8440"
agents_url = "{agents_url}"
ca_file = "tls/ca.pem"
token_file = "operator.token"
federation = "{federation}"
key_file = "operator.key"
"""
RUN = f"""\
preset = "demo"
evaluation_examples = {EVALUATED_ITEMS}
# Where the worker has the models.
llm = "/fedcollm/models/llm"
slm = "/fedcollm/models/slm"
"""
WORKER = """\
coordinator_url = "https://coordinator:8441"
ca_file = "ca.pem"
token_file = "token"
cache_dir = "cache"
device = "cpu"
# For Prometheus, on the network that these two and the coordinator share.
metrics_host = "0.0.0.0"
metrics_port = 8442

[auxiliary]
path = "auxiliary.jsonl"

[validation]
path = "validation.jsonl"
"""
AGENT = f"""\
coordinator_url = "{AGENT_URL}"
ca_file = "ca.pem"
name = "{{name}}"
federation = "{FEDERATION}"
operator_key = "{{operator_key}}"
identity_key_file = "agent.key"
state_dir = "state"
slm = "models/slm"
device = "cpu"

[data]
path = "data.jsonl"

[evaluation]
path = "evaluation.jsonl"
"""


def bootstrap(folder: Path) -> tuple[list[str], list[str]]:
    """Fill the folders that have not been filled; return their names, and who was given another secret or trust."""
    key = _kept(folder / "coordinator" / "operator.key")
    given = sorted(_give_tokens(folder) | _give_certificates(folder) | _give_operator(folder, key.public))
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch)
        write_demo_data(
            data,
            seed=SEED,
            items_per_agent=ITEMS_AN_AGENT,
            evaluation_items=EVALUATION_ITEMS,
            auxiliary_items=AUXILIARY_ITEMS,
            validation_items=VALIDATION_ITEMS,
        )

        def fill_coordinator(into: Path) -> None:
            known = COORDINATOR.format(federation=FEDERATION, operator_key=key.public)
            operated = OPERATOR.format(federation=FEDERATION, agents_url=AGENT_URL)
            _write(into, {"coordinator.toml": known, "operator.toml": operated, "run.toml": RUN})

        def fill_worker(into: Path) -> None:
            _write(into, {"worker.toml": WORKER})
            _copy(into, {"auxiliary.jsonl": data / "auxiliary.jsonl", "validation.jsonl": data / "validation.jsonl"})
            _copy(into, {"models/llm": MODELS / "llm", "models/slm": MODELS / "slm"})

        def fill_agent(into: Path) -> None:
            _kept(into / "agent.key")
            _write(into, {"agent.toml": AGENT.format(name=into.name, operator_key=key.public)})
            _copy(into, {"data.jsonl": data / f"{into.name}.jsonl", "models/slm": MODELS / "slm"})
            _copy(into, {"evaluation.jsonl": data / f"{into.name}-evaluation.jsonl"})

        def fill_prometheus(_into: Path) -> None:
            """Add nothing: all that it has was given to it above."""

        fillings = {"coordinator": fill_coordinator, "worker": fill_worker, "prometheus": fill_prometheus}
        fillings |= dict.fromkeys(AGENTS, fill_agent)
        filled = [name for name, fill in fillings.items() if _fill_once(folder / name, fill)]
    return filled, given


def _give_tokens(folder: Path) -> set[str]:
    """Issue a token to everybody who has none that the coordinator knows, and return whose these are."""
    principals_file = folder / "coordinator" / "principals.json"
    known = dict(read_entries(principals_file)) if principals_file.exists() else {}
    issued = {}
    for name, file in TOKENS.items():
        there = folder / file
        held = sha256(there.read_text().strip()) if there.exists() else None
        if name not in known or known[name].token_sha256 != held:
            issued[name], known[name] = issue(ROLES[name])
    for name, token in issued.items():
        write_private(folder / TOKENS[name], token)
    if issued:  # last: a call that is broken off before issues them again
        write_private(principals_file, TokensFile(known).model_dump_json(indent=2))
    return set(issued)


def _give_certificates(folder: Path) -> set[str]:
    """Make a CA unless there is one, write it wherever there is none or another, and return for whom."""
    made = folder / "coordinator" / "tls"
    if not all((made / name).exists() for name in FILES):
        write_authority(made, HOSTS)
    authority = (made / CA_FILE).read_text().strip()
    return {name for name, file in CA_FILES.items() if _give(folder / file, authority)}


def _give_operator(folder: Path, key: str) -> set[str]:
    """Write the operator's public key wherever another is believed, and return by whom."""
    changed = set()
    for name in AGENTS:
        file = folder / name / "agent.toml"
        if file.exists():
            believing = re.sub('(?m)^operator_key = ".*"$', f'operator_key = "{key}"', file.read_text())
            changed |= {name} if _give(file, believing.strip()) else set()
    return changed


def _kept(file: Path) -> IdentityKey:
    """Return the key of a file, made if there is none."""
    key = key_of(file)
    keep_key(file, key)
    return key


def _give(file: Path, content: str) -> bool:
    """Write a file unless it has this content; return whether it was written."""
    if file.exists() and file.read_bytes().strip() == content.encode():
        return False
    write_private(file, content)
    return True


def _fill_once(folder: Path, fill: Callable[[Path], None]) -> bool:
    """Fill a folder unless it has the mark, which is written last; return whether it was filled."""
    if (folder / MARK).exists():
        return False
    fill(folder)
    _write(folder, {MARK: WARNING})
    return True


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """Write files into a folder."""
    for name, content in files.items():
        write_text(folder / name, content)


def _copy(folder: Path, sources: Mapping[str, Path]) -> None:
    """Copy files and folders without their modes, which are those of somebody's clone."""
    for name, source in sources.items():
        if source.is_dir():
            (folder / name).mkdir(parents=True, exist_ok=True)
            _copy(folder / name, {entry.name: entry for entry in source.iterdir()})
        else:
            shutil.copyfile(source, folder / name)


def main() -> int:
    """Fill the folders and say which."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo.bootstrap", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the folders of the services are, or will be")
    os.umask(0o077)  # secrets and data are for their owner alone
    filled, given = bootstrap(parser.parse_args().folder)
    if filled:
        print(f"filled: {', '.join(filled)} (for this demo only)")
    if given:
        print(f"new token, CA or operator: {', '.join(given)} (restart whichever runs)")
    if not filled and not given:
        print("all is there: nothing was changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
