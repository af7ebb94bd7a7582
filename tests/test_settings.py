from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from services.client_agent.settings import Settings as AgentSettings
from services.coordinator.worker.settings import Settings as WorkerSettings

REST = {
    AgentSettings: {"state_dir": "state", "base_model": "slm", "data": "data.jsonl"},
    WorkerSettings: {"cache_dir": "cache", "auxiliary": "auxiliary.jsonl", "validation": "validation.jsonl"},
}
both = pytest.mark.parametrize("kind", REST, ids=["agent", "worker"])


def settings(kind: type[BaseSettings], **changes: str) -> Any:  # noqa: ANN401 - of either kind
    """Return settings that can be used, bent."""
    return kind(**{"coordinator_url": "https://here:8440/fed", "token": "a-secret-token", **REST[kind], **changes})


@both
def test_a_tokens_surroundings_do_not_count(kind: type[BaseSettings]) -> None:
    """A token read from a file ends in a line break, and means the same."""
    assert settings(kind, token=" a-secret-token\n").token == settings(kind).token == "a-secret-token"


@both
@pytest.mark.parametrize("token", ["a-secret\ntoken", "a-secret\x00token", "a-secrét-token", "a-secret\ttoken"])
def test_a_token_that_no_request_can_carry_is_refused_and_not_repeated(kind: type[BaseSettings], token: str) -> None:
    """The setting's name and what a token is like are told; the token is not."""
    with pytest.raises(ValidationError, match=r"token\n.*printable ASCII") as told:
        settings(kind, token=token)
    assert "a-secr" not in str(told.value)


@both
@pytest.mark.parametrize(
    "url", ["", "localhost:8440", "ftp://here", "http://", "http:///v1", "http://here:port", "http://ada:a-secret@here"]
)
def test_an_address_that_is_no_coordinators_is_refused(kind: type[BaseSettings], url: str) -> None:
    """What cannot be asked over HTTP is told at start, not retried for ever."""
    with pytest.raises(ValidationError, match=r"coordinator_url\n.*http or https") as told:
        settings(kind, coordinator_url=url)
    assert "a-secret" not in str(told.value)
