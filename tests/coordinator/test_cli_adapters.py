"""`fedcollm adapters`: what a run made, on an operator's disk."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner, Result

from bench.federation import key_of
from services.coordinator.cli.app import app
from services.coordinator.context import Context
from shared.adapter_folder import CARD, CONFIG, README, WEIGHTS, Written, read_card
from shared.cli.console import ExitCode
from shared.protocol.digests import digest_of
from shared.protocol.messages import ArtefactList
from tests.support.federations import RUN, begin, play_round, theta_of
from tests.support.served import Operated, operated


@pytest.fixture
def operator(context: Context, tmp_path: Path) -> Iterator[Operated]:
    """A coordinator whose run has published one round."""
    begin(context)
    play_round(context, 1)
    with operated(context, tmp_path) as opened:
        yield opened


def adapters(operator: Operated, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["adapters", *arguments, *operator.options])


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_adapters_of_a_run_are_listed(operator: Operated):
    """By name, with round and digest; with --json as the protocol's message."""
    assert theta_of(operator.context) in adapters(operator, "list", RUN).stdout
    listed = ArtefactList.model_validate_json(adapters(operator, "list", RUN, "--json").stdout)
    assert listed.artefacts == tuple(operator.context.lifecycle.artefacts(RUN))


@pytest.mark.parametrize("command", [("pull", RUN, "slm-adapter"), ("export", f"{RUN}/slm-adapter")])
def test_an_adapter_becomes_a_peft_directory(operator: Operated, tmp_path: Path, command: tuple[str, ...]):
    """Weights with the published digest, their configuration and their card, and nothing beside them."""
    out = tmp_path / "deep" / "adapter"
    result = adapters(operator, *command, "--out", str(out), "--json")
    assert result.exit_code == ExitCode.DONE, result.output
    assert digest_of((out / WEIGHTS).read_bytes()) == theta_of(operator.context)
    assert json.loads((out / CONFIG).read_text())["peft_type"] == "LORA"
    assert names_in(out) == sorted([WEIGHTS, CONFIG, CARD, README])
    assert names_in(out.parent) == ["adapter"]
    written = Written.model_validate_json(result.stdout)
    assert written == Written(folder=out, bytes=sum(file.stat().st_size for file in out.iterdir()))


def test_a_peft_directory_is_exported_without_a_coordinator(operator: Operated, tmp_path: Path):
    """What was pulled once can be handed on, in the same form."""
    adapters(operator, "pull", RUN, "llm-adapter", "--out", str(tmp_path / "pulled"))
    result = CliRunner().invoke(app, ["adapters", "export", str(tmp_path / "pulled"), "--out", str(tmp_path / "again")])
    assert result.exit_code == ExitCode.DONE, result.output
    first, second = (load_file(tmp_path / name / WEIGHTS) for name in ("pulled", "again"))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_what_is_there_is_replaced_only_by_force_and_only_by_its_like(operator: Operated, tmp_path: Path):
    """An older adapter with --force; never a folder that holds something else."""
    pull = ("pull", RUN, "slm-adapter", "--out")
    old = tmp_path / "adapter"
    adapters(operator, *pull, str(old))
    (old / "note").write_text("mine")

    refused = adapters(operator, *pull, str(old))
    assert refused.exit_code == ExitCode.WRONG_USAGE
    assert "(output_exists)" in refused.stderr
    assert "--force" in refused.stderr
    assert "note" in names_in(old)

    assert adapters(operator, *pull, str(old), "--force").exit_code == ExitCode.DONE
    assert names_in(old) == sorted([WEIGHTS, CONFIG, CARD, README])

    home = tmp_path / "home"
    home.mkdir()
    (home / "note").write_text("mine")
    refused = adapters(operator, *pull, str(home), "--force")
    assert refused.exit_code == ExitCode.WRONG_USAGE
    assert names_in(home) == ["note"]


@pytest.mark.parametrize(
    ("arguments", "code", "problem", "told"),
    [
        (("pull", RUN, "mlm-adapter"), ExitCode.REFUSED, "not_found", "it has slm-adapter, llm-adapter"),
        (("pull", "nothing", "slm-adapter"), ExitCode.REFUSED, "not_found", "nothing"),
        (("export", "nowhere"), ExitCode.WRONG_USAGE, "configuration_invalid", "is no PEFT directory"),
        (("export", "."), ExitCode.FAILED, "model_unreadable", "it has no adapter_model.safetensors"),
        (
            ("export", f"{RUN}/slm-adapter", "--base", "x"),
            ExitCode.WRONG_USAGE,
            "configuration_invalid",
            "--base is for",
        ),
        (("export", f"{RUN}/slm-adapter", "--merged"), ExitCode.FAILED, "model_unreadable", "name it with --base"),
    ],
)
def test_what_cannot_be_fetched_leaves_nothing(
    operator: Operated,
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: ExitCode,
    problem: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
):
    """Its exit code and problem, and no folder, whole or half."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    before = names_in(tmp_path)
    result = adapters(operator, *arguments, "--out", str(tmp_path / "out"), "--json")
    assert (result.exit_code, result.stdout) == (code, "")
    document = json.loads(result.stderr)
    assert document["code"] == problem
    assert told in document["detail"]
    assert names_in(tmp_path) == before


def test_an_adapter_that_is_damaged_on_the_way_is_not_kept(operator: Operated, tmp_path: Path):
    """The digest is that of the list, whatever the blob's bytes say."""
    [slm, _] = operator.context.lifecycle.artefacts(RUN)
    _, blob = operator.context.lifecycle.artefact_path(RUN, slm.name)
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:-1] + b"\x7f")
    result = adapters(operator, "pull", RUN, slm.name, "--out", str(tmp_path / "out"))
    assert result.exit_code != ExitCode.DONE
    assert not (tmp_path / "out").exists()


def test_a_configuration_of_more_than_plain_lora_is_not_kept(
    operator: Operated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Who fetches an adapter loads it with PEFT, which imports what its configuration says."""
    artefacts = [
        artefact.model_copy(update={"adapter_config": {**artefact.adapter_config, "megatron_core": "antigravity"}})
        for artefact in operator.context.lifecycle.artefacts(RUN)
    ]
    monkeypatch.setattr(operator.context.lifecycle, "artefacts", lambda _: artefacts)
    result = adapters(operator, "pull", RUN, "llm-adapter", "--out", str(tmp_path / "out"))
    assert (result.exit_code, "megatron_core of an adapter" in result.stderr) == (ExitCode.FAILED, True)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_named(operator: Operated, tmp_path: Path):
    """The disk's no is a message, not a traceback."""
    (tmp_path / "file").write_text("")
    result = adapters(operator, "pull", RUN, "slm-adapter", "--out", str(tmp_path / "file" / "out"))
    assert result.exit_code == ExitCode.FAILED
    assert "(output_unwritable)" in result.stderr


def test_an_adapter_is_checked_without_a_coordinator(operator: Operated, tmp_path: Path):
    """From its files and the operator's public key; with a copy of the audit log, that this has the card's entry."""
    out, log = tmp_path / "adapter", tmp_path / "audit.jsonl"
    adapters(operator, "pull", RUN, "slm-adapter", "--out", str(out))
    CliRunner().invoke(app, ["audit", "export", str(log), *operator.options])
    key = ("--operator-key", key_of("operator").public)
    checked = CliRunner().invoke(app, ["adapters", "verify", str(out), *key, "--audit-log", str(log)])
    assert checked.exit_code == ExitCode.DONE, checked.output
    assert f"round 1 of run {RUN} has published" in checked.stdout.replace("\n", " ")
    assert "has this entry" in checked.stdout.replace("\n", " ")

    other = CliRunner().invoke(app, ["adapters", "verify", str(out), "--operator-key", key_of("ada").public])
    assert other.exit_code == ExitCode.FAILED
    assert "(signature_invalid)" in other.stderr
    weights = bytearray((out / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (out / WEIGHTS).write_bytes(weights)
    changed = CliRunner().invoke(app, ["adapters", "verify", str(out), *key])
    assert changed.exit_code == ExitCode.FAILED
    assert "(card_invalid)" in changed.stderr


def test_an_audit_log_without_the_cards_entry_is_another_one(operator: Operated, tmp_path: Path):
    """A coordinator that was set up anew has signed other entries, or has another key."""
    out, log = tmp_path / "adapter", tmp_path / "audit.jsonl"
    adapters(operator, "pull", RUN, "slm-adapter", "--out", str(out))
    CliRunner().invoke(app, ["audit", "export", str(log), *operator.options])
    entries = read_card(out).card.audit.seq
    log.write_text("".join(line + "\n" for line in log.read_text().splitlines()[:entries]))
    key = ("--operator-key", key_of("operator").public)
    cut = CliRunner().invoke(app, ["adapters", "verify", str(out), *key, "--audit-log", str(log)])
    assert cut.exit_code == ExitCode.FAILED
    assert "(audit_broken)" in cut.stderr
