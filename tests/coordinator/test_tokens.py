import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.coordinator.principals import Principal, Role
from services.coordinator.tokens import KnownTokens, TokenEntry, TokenFile, TokensFile, issue, issue_all, read_entries
from shared.errors import ConfigurationError, NotAuthenticated

ENDS = datetime(2026, 1, 1, tzinfo=UTC)
NOW = ENDS.timestamp() - 1
ADA = TokenEntry.of("fct_of-ada", Role.VIEWER, not_after=ENDS)


def entry(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return an entry as the file has it, bent."""
    return {**ADA.model_dump(mode="json"), **changes}


def write(file: Path, entries: Mapping[str, TokenEntry]) -> None:
    """Replace the file as `fedcollm tokens` does."""
    part = file.with_name("part")
    part.write_text(TokensFile(dict(entries)).model_dump_json())
    part.replace(file)


def test_a_token_is_found_by_its_hash_until_it_ends():
    """Up to its last moment, and then its holder reads that it has ended."""
    tokens = KnownTokens({"ada": ADA})
    assert tokens.find("fct_of-ada", ENDS.timestamp()) == Principal("ada", Role.VIEWER)
    with pytest.raises(NotAuthenticated, match="token of ada has ended on 2026-01-01"):
        tokens.find("fct_of-ada", ENDS.timestamp() + 1)
    for other in ("fct_of-bob", "", ADA.token_sha256, "fct_of-ada ", "é"):
        with pytest.raises(NotAuthenticated, match="no token that this coordinator knows"):
            tokens.find(other, NOW)


def test_no_token_stays_in_memory_or_in_the_file(tmp_path: Path):
    """What a dump of the process or a copy of the file shows is hashes."""
    issued, file = issue_all({"ada": Role.VIEWER, "gpu": Role.WORKER})
    (tmp_path / "principals.json").write_text(file.model_dump_json())
    tokens = TokenFile(tmp_path / "principals.json")
    shown = repr(vars(tokens)) + repr(vars(tokens._tokens)) + (tmp_path / "principals.json").read_text()
    assert not [token for token in issued.values() if token in shown]
    assert tokens.find(issued["gpu"], NOW) == Principal("gpu", Role.WORKER)


def test_a_new_token_says_what_it_is_has_256_bits_and_holds_for_a_year():
    """Whoever finds one in a log or in a repository knows it for what it is."""
    token, kept = issue(Role.OPERATOR)
    assert re.fullmatch(r"fct_[A-Za-z0-9_-]{43}", token)
    assert token != issue(Role.OPERATOR)[0]
    assert 364 <= (kept.not_after - datetime.now(UTC)).days <= 365


def test_a_changed_file_is_read_again(tmp_path: Path):
    """A token that was issued is known to the next request, and one that was revoked is not."""
    file = tmp_path / "principals.json"
    write(file, {"ada": ADA})
    tokens = TokenFile(file)
    write(file, {"bob": TokenEntry.of("fct_of-bob", Role.WORKER, not_after=ENDS)})
    assert tokens.find("fct_of-bob", NOW) == Principal("bob", Role.WORKER)
    with pytest.raises(NotAuthenticated):
        tokens.find("fct_of-ada", NOW)


@pytest.mark.parametrize("content", [None, '{"ada": ', '{"ada": {"role": "viewer"}}'])
def test_half_an_edit_locks_nobody_out(content: str | None, tmp_path: Path):
    """Who was known stays so, the log says why, once, and the next change is read."""
    file = tmp_path / "principals.json"
    write(file, {"ada": ADA})
    tokens = TokenFile(file)
    file.unlink()
    if content is not None:
        file.write_text(content)
    with capture_logs() as lines:
        for _ in range(2):
            assert tokens.find("fct_of-ada", NOW).name == "ada"
    assert [(line["event"], "principals" in line["detail"]) for line in lines] == [("tokens.kept", True)]
    write(file, {})
    with pytest.raises(NotAuthenticated):
        tokens.find("fct_of-ada", NOW)


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "[]",
        '{"ada": "token"}',
        json.dumps({"ada": entry(role="king")}),
        json.dumps({"ada": entry(role="anyone")}),
        json.dumps({"ada": entry(token_sha256="0123456789abcdef")}),
        json.dumps({"ada": entry(token_sha256=ADA.token_sha256.upper())}),
        json.dumps({"ada": entry(not_after="tomorrow")}),
        json.dumps({"ada": entry(not_after="2026-01-01T00:00:00")}),
        json.dumps({"ada": entry(token="fct_secret")}),
        json.dumps({"a/b": entry()}),
        f'{{"ada": {json.dumps(entry())}, "ada": {json.dumps(entry())}}}',
        "\x00\xff",
    ],
)
def test_a_file_that_is_not_one_is_refused(content: str | None, tmp_path: Path):
    """A coordinator does not start with half a principals file, and says which file and why."""
    path = tmp_path / "principals.json"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigurationError, match=r"principals\.json"):
        TokenFile(path)


def test_a_refused_file_does_not_show_what_is_in_it(tmp_path: Path):
    """Error messages end in logs, and a token that somebody wrote where its hash belongs must not."""
    path = tmp_path / "principals.json"
    path.write_text(json.dumps({"ada": entry(token_sha256="fct_a-real-secret"), "bob": "fct_another-real-secret"}))
    with pytest.raises(ConfigurationError) as refusal:
        read_entries(path)
    assert "real-secret" not in str(refusal.value)


def test_a_shared_token_is_refused_by_the_names_of_those_who_share_it(tmp_path: Path):
    """Of two principals with one token the coordinator could not say who asks."""
    path = tmp_path / "principals.json"
    path.write_text(json.dumps({"ada": entry(), "bob": entry()}))
    with pytest.raises(ConfigurationError, match="ada and bob have the same token"):
        read_entries(path)


def test_the_documented_form_is_read(tmp_path: Path):
    """As docs/operating.md shows it, and as it is written."""
    path = tmp_path / "principals.json"
    path.write_text(json.dumps({"ada": entry(not_after="2026-01-01T00:00:00Z")}))
    os.utime(path)
    assert read_entries(path) == {"ada": ADA}
    assert TokensFile({"ada": ADA}).model_dump(mode="json")["ada"]["not_after"] == "2026-01-01T00:00:00+00:00"
