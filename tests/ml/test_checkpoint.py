from pathlib import Path

import pytest

from examples.demo.pretrain import CARD
from shared.ml.checkpoint import licence

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("card", "stated"),
    [
        ("---\nlicense: apache-2.0\nlanguage: en\n---\n# A model", "apache-2.0"),
        ("---\nlanguage: en\nlicense: 'mit'\n---\n", "mit"),
        ("---\r\nlicense: mit \r\n---\r\n", "mit"),
        ("---\nlicense: other\nlicense_name: qwen-research\n---\n", "qwen-research"),
        ("---\nlanguage: en\n---\nlicense: mit\n---\n", None),
        ("# A model\n---\nlicense: mit\n---\n", None),
        ("---\nlicense: <script>\n---\n", None),
        ("---\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_a_licence_is_what_the_models_own_card_states(card: str, stated: str | None, tmp_path: Path) -> None:
    """In the metadata above it, as hubs read it; nothing is guessed from its text."""
    (tmp_path / "README.md").write_bytes(card.encode())
    assert licence(tmp_path) == stated


def test_a_model_without_a_card_states_no_licence(tmp_path: Path) -> None:
    """Nobody needs one to train."""
    assert licence(tmp_path) is None


@pytest.mark.parametrize(("name", "parameters"), [("llm", 4_055_296), ("slm", 1031552)])
def test_the_demos_models_have_cards(name: str, parameters: int) -> None:
    """As the script that made them writes them."""
    folder = ROOT / "examples" / "demo" / "models" / name
    assert (folder / "README.md").read_text() == CARD.format(name=name.upper(), parameters=parameters)
    assert licence(folder) == "apache-2.0"
