"""Settings of every process, as users write them: a file, the environment, and what they are told of mistakes."""

from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from services.client_agent.settings import Settings as AgentSettings
from services.coordinator.cli.settings import OperatorSettings
from services.coordinator.settings import Settings as CoordinatorSettings
from services.coordinator.worker.settings import Settings as WorkerSettings
from shared.configuration import read_settings
from shared.credentials import BearerToken
from shared.errors import ConfigurationError

FILES = {
    AgentSettings: """
        coordinator_url = "https://here:8440/fed"
        name = "ada"
        federation = "clinics"
        operator_key = "ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
        identity_key_file = "agent.key"
        state_dir = "state"
        slm = "slm"
        [data]
        path = "data.jsonl"
    """,
    WorkerSettings: """
        coordinator_url = "https://here:8440/fed"
        token_file = "token"
        cache_dir = "cache"
        auxiliary.path = "auxiliary.jsonl"
        validation.path = "validation.jsonl"
    """,
    OperatorSettings: """
        coordinator_url = "https://here:8440/fed"
        token_file = "token"
    """,
    CoordinatorSettings: """
        data_dir = "data"
        principals_file = "principals.json"
        federation = "clinics"
        operator_key = "ed25519:11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    """,
}
asking = pytest.mark.parametrize(
    "kind", [AgentSettings, WorkerSettings, OperatorSettings], ids=["agent", "worker", "operator"]
)


def write(folder: Path, kind: type[BaseSettings], *, above: str = "") -> Path:
    """Write a file of settings that can be used, with other lines above them."""
    file = folder / "settings.toml"
    file.write_text(above + "\n" + FILES[kind])
    return file


@pytest.mark.parametrize("kind", FILES)
def test_paths_in_a_file_start_at_the_file(kind: type[BaseSettings], tmp_path: Path):
    """Whatever folder a process is started in, its file means the same."""
    settings = read_settings(kind, write(tmp_path, kind))
    paths = [value for _, value in settings if isinstance(value, Path)]
    assert paths
    assert all(path.parent == tmp_path for path in paths)


def test_paths_inside_a_table_start_at_the_file_too(tmp_path: Path):
    """However TOML lets one write a table."""
    worker = read_settings(WorkerSettings, write(tmp_path, WorkerSettings))
    agent = read_settings(AgentSettings, write(tmp_path, AgentSettings))
    assert worker.auxiliary.path == tmp_path / "auxiliary.jsonl"
    assert agent.data.path == tmp_path / "data.jsonl"


@pytest.mark.parametrize(("kind", "folder"), [(WorkerSettings, "cache_dir"), (AgentSettings, "state_dir")])
def test_digests_of_models_are_kept_in_the_folder_that_the_process_owns(
    kind: type[WorkerSettings | AgentSettings], folder: str, tmp_path: Path
):
    """Whatever the folder is called: two that differ after a dot share nothing."""
    owned = tmp_path / "kept.v1"
    settings = read_settings(kind, write(tmp_path, kind), given={folder: owned})
    assert settings.digest_cache.parent == owned


def test_a_model_is_a_folder_where_there_is_one_and_a_hub_id_elsewhere(tmp_path: Path):
    """`slm` may be either, and nobody has to say which."""
    file = write(tmp_path, AgentSettings)
    assert read_settings(AgentSettings, file).slm == "slm"
    (tmp_path / "slm").mkdir()
    assert read_settings(AgentSettings, file).slm == str(tmp_path / "slm")


def test_home_is_where_its_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A leading ~ means in a file of settings what it means in a shell, also where no folder is there."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "slm").mkdir(parents=True)
    file = tmp_path / "agent.toml"
    text = FILES[AgentSettings].replace('"slm"', '"~/slm"').replace('"agent.key"', '"~/agent.key"')
    file.write_text(text)
    settings = read_settings(AgentSettings, file)
    home = tmp_path / "home"
    assert (settings.slm, settings.identity_key_file) == (str(home / "slm"), home / "agent.key")
    file.write_text(text.replace("~/slm", "~/llm"))
    assert read_settings(AgentSettings, file).slm == str(tmp_path / "home" / "llm")


@pytest.mark.parametrize(
    ("name", "told"), [("", "slm: String should have at least 1 char"), ("a" * 300, r"slm: .*File name too long")]
)
def test_a_name_that_no_model_can_have_is_refused(name: str, told: str, tmp_path: Path):
    """None at all is not the file's own folder."""
    file = tmp_path / "agent.toml"
    file.write_text(FILES[AgentSettings].replace('"slm"', f'"{name}"'))
    with pytest.raises(ConfigurationError, match=told):
        read_settings(AgentSettings, file)


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also for one value inside a table, of which the file's others stay."""
    monkeypatch.setenv("FEDCOLLM_AGENT_STATUS_PORT", "9000")
    monkeypatch.setenv("FEDCOLLM_AGENT_DATA__COLUMNS__ANSWER", "key")
    settings = read_settings(AgentSettings, write(tmp_path, AgentSettings, above="status_port = 1"))
    assert settings.status_port == 9000
    assert settings.data.columns.answer == "key"
    assert settings.data.path == tmp_path / "data.jsonl"


def test_what_a_command_line_was_given_wins_over_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An option is said last, and about this one time."""
    monkeypatch.setenv("FEDCOLLM_OPERATOR_COORDINATOR_URL", "http://variable:1")
    file = write(tmp_path, OperatorSettings)
    given = {"coordinator_url": "http://option:1"}
    assert read_settings(OperatorSettings, file).coordinator_url == "http://variable:1"
    settings = read_settings(OperatorSettings, file, given=given)
    assert settings.coordinator_url == "http://option:1"
    assert settings.token_file == tmp_path / "token"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('devise = "cpu"', "devise is no setting: 'device' was meant?"),
        ("zzz = 1", "zzz is no setting: there are ca_file, coordinator_url, data"),
        ('[data]\npth = "x"', r"data\.path is missing: set it \(or FEDCOLLM_AGENT_DATA__PATH in the environment\)"),
        ('[data]\npath = "x"\ncolums = 1', r"data\.colums is no setting: 'columns' was meant\?"),
        ('[data.columns]\nanwser = "x"', r"data\.columns\.anwser is no setting: 'answer' was meant\?"),
        ("threads = 0", "threads: Input should be greater than or equal to 1"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_as_its_user_wrote_it(line: str, told: str, tmp_path: Path):
    """Which one, and what may have been meant."""
    file = tmp_path / "agent.toml"
    usual = FILES[AgentSettings].partition("[data]")[0] if "[data" in line else FILES[AgentSettings]
    file.write_text(f"{usual}\n{line}" if "[data" in line else f"{line}\n{usual}")
    with pytest.raises(ConfigurationError, match=told) as caught:
        read_settings(AgentSettings, file)
    assert str(file) in str(caught.value)


def test_an_unknown_variable_is_named_too(monkeypatch: pytest.MonkeyPatch):
    """A misspelt variable would else be passed over without a word."""
    monkeypatch.setenv("FEDCOLLM_COORDINATOR_PROT", "9000")
    with pytest.raises(
        ConfigurationError,
        match="FEDCOLLM_COORDINATOR_PROT in the environment is no setting: 'FEDCOLLM_COORDINATOR_PORT' was meant",
    ):
        read_settings(CoordinatorSettings)
    monkeypatch.delenv("FEDCOLLM_COORDINATOR_PROT")
    monkeypatch.setenv("FEDCOLLM_COORDINATOR_ZZZ", "9000")
    with pytest.raises(ConfigurationError, match="ZZZ in the environment is no setting: there are"):
        read_settings(CoordinatorSettings)


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "there is no 'here.toml' in"), (b"port = ", "is not TOML"), (b"a = '\xff'", "is not TOML")],
)
def test_a_file_that_is_none_is_named(content: bytes | None, told: str, tmp_path: Path):
    """No traceback, and the file's name."""
    file = tmp_path / "here.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=told) as caught:
        read_settings(CoordinatorSettings, file)
    assert "here.toml" in str(caught.value)


@asking
@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8440",
        "ftp://here",
        "http://",
        "http:///v1",
        "http://here:port",
        "http://here:84400",
        "http://he..re",
        "http://ada:a-secret@here",
    ],
)
def test_an_address_that_is_no_coordinators_is_refused(
    kind: type[BaseSettings], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What cannot be asked over HTTP is told at start, not retried for ever."""
    monkeypatch.setenv(f"{kind.model_config['env_prefix']}COORDINATOR_URL", url)
    with pytest.raises(ConfigurationError, match=r"coordinator_url: .*http or https") as told:
        read_settings(kind, write(tmp_path, kind))
    assert "a-secret" not in str(told.value)


def test_a_tokens_surroundings_do_not_count(tmp_path: Path):
    """A token written with an editor ends in a line break, and means the same."""
    (tmp_path / "token").write_text(" a-secret-token\n")
    assert BearerToken.read(tmp_path / "token").token == "a-secret-token"


@pytest.mark.parametrize("token", ["a-secret\ntoken", "a-secret\x00token", "a-secrét-token", "a-secret\ttoken"])
def test_a_token_that_no_request_can_carry_is_refused_and_not_repeated(token: str, tmp_path: Path):
    """The file's name and what a token is like are told; the token is not."""
    (tmp_path / "token").write_text(token)
    with pytest.raises(ConfigurationError, match="printable ASCII") as told:
        BearerToken.read(tmp_path / "token")
    assert "a-secr" not in str(told.value)


def test_a_token_file_that_is_not_there_is_named(tmp_path: Path):
    """Nobody is asked without a token."""
    with pytest.raises(ConfigurationError, match="the token file: there is no 'nothing' in"):
        BearerToken.read(tmp_path / "nothing")
