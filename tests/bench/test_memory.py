from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from bench.memory import Case, estimated, measured


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model whose head has as many entries as a real one's: logits are what takes most."""
    folder = tmp_path_factory.mktemp("wide")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=32_000, max_position_embeddings=128, **sizes)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("models", "rows"), [(1, 16), (2, 16), (2, 1)], ids=["training", "co-tuning", "mostly evaluation"]
)
def test_an_estimate_is_near_what_a_process_takes(wide: Path, models: int, rows: int):
    """Never much less, or machines would run out of memory; and not twice as much, or machines that do would refuse."""
    case = Case((wide,) * models, rows=rows, tokens=72, answer=64)
    assert 0.9 < estimated(case).total_bytes / measured(case) < 2
