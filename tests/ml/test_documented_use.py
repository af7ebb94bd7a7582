"""The Python of docs/results.md is run, and an adapter has what the page says that others want of it."""

import re
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from shared.adapter_folder import WEIGHTS, write_adapter_config
from shared.ml.adapters import adapter_config, adapter_tensors
from tests.support.tiny_models import tiny_directory, tiny_lora

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text()


def test_the_page_loads_an_adapter_as_it_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """In a folder with the base model and the adapter, as the commands above it leave one; and it answers."""
    tiny_directory(tmp_path / "models" / "slm")
    tuned = tiny_lora(spread=0.5)
    (tmp_path / "cotuned").mkdir()
    save_file(adapter_tensors(tuned), tmp_path / "cotuned" / WEIGHTS)
    write_adapter_config(tmp_path / "cotuned", adapter_config(tuned, base_model="models/slm"))
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(block, {})  # noqa: S102 - our own page
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("family", ["llama", "qwen2", "opt"])
def test_an_adapter_is_plain_lora_under_the_names_of_its_model(family: str):
    """What vLLM's reader of adapters wants: no biases, no modules beside LoRA's, and names below base_model.model."""
    tuned = tiny_lora(family)
    config = adapter_config(tuned, base_model="models/slm")
    assert config["bias"] == "none"
    assert not {"modules_to_save", "use_dora", "use_rslora"} & config.keys()
    modules = {name for name, _ in tuned.get_base_model().named_modules()}
    for name in adapter_tensors(tuned):
        found = re.fullmatch(r"base_model\.model\.(.+)\.lora_[AB]\.weight", name)
        assert found
        assert found[1] in modules
