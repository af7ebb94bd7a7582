import importlib.util
import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from shared.data.examples import Example
from shared.errors import ConfigurationError, ContextTooShort, LoraTargetMissing, ModelUnreadable
from shared.ml.adapters import adapter_layout, adapter_tensors
from shared.ml.checkpoint import context_length, read_config
from shared.ml.digests import base_model_digest
from shared.ml.encoding import Encoded, encode_choices
from shared.ml.evaluate import evaluate
from shared.ml.models import (
    add_lora,
    load_base,
    load_tokenizer,
    lora_targets,
    pick_device,
    recompute_activations,
    require_context,
    require_dtype,
)
from shared.ml.train import train_local
from shared.protocol.tensors import parameter_count
from shared.protocol.terms import OptimiserTerms
from tests.support.tiny_models import FAMILIES, tiny_base, tiny_directory, tiny_lora, tiny_tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_directory(tmp_path_factory.mktemp("model"))


def copy_of(folder: Path, target: Path) -> Path:
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize("family", ["gpt2", "opt", *FAMILIES])
def test_every_family_gets_lora_on_all_its_attention_projections(family: str):
    """Each target of the table names a module in every layer, and nothing else trains."""
    model = tiny_lora(family)
    found = {name.rsplit(".", 3)[1] for name in adapter_layout(model)}
    assert found == set(lora_targets(family))
    assert len(adapter_layout(model)) == 2 * 2 * len(lora_targets(family))
    assert all("lora_" in name for name, weight in model.named_parameters() if weight.requires_grad)


def test_no_lora_goes_where_a_model_sees(tmp_path: Path):
    """Gemma 3's vision tower has modules of the targets' names, and gets no LoRA; PEFT loads the rest."""
    base = tiny_base("gemma3")
    assert any("vision_tower" in name and name.endswith(".q_proj") for name, _ in base.named_modules())
    layout = adapter_layout(add_lora(base, rank=4, alpha=8, dropout=0.0, targets=["q_proj"], seed=0))
    assert len(layout) == 4
    assert all(".language_model." in name for name in layout)
    with pytest.raises(LoraTargetMissing, match="'out_proj' names no module"):
        add_lora(tiny_base("gemma3"), rank=4, alpha=8, dropout=0.0, targets=["out_proj"], seed=0)
    model = tiny_lora("gemma3", spread=0.3)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_base("gemma3"), tmp_path)
    ids = torch.arange(8)[None]
    assert torch.equal(again(ids).logits, model(ids).logits)


def test_the_parameter_counts_are_those_of_the_papers_table_2():
    """GPT-2 small 0.29 M, OPT-1.3B and a 1.3B Llama 3.15 M, with rank 8; on meta tensors."""
    shape = {"hidden_size": 2048, "num_hidden_layers": 24}
    with torch.device("meta"):
        gpt2 = GPT2LMHeadModel(GPT2Config())
        opt = OPTForCausalLM(OPTConfig(**shape, ffn_dim=8192, num_attention_heads=32, word_embed_proj_dim=2048))
        llama = LlamaForCausalLM(LlamaConfig(**shape, intermediate_size=5504, num_attention_heads=16))
    for base, count in ((gpt2, 294_912), (opt, 3_145_728), (llama, 3_145_728)):
        model = add_lora(base, rank=8, alpha=16, dropout=0.05, targets=None, seed=0)
        assert parameter_count(adapter_layout(model)) == count
        assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == count


def test_every_target_must_match_even_if_others_do():
    """PEFT alone would go on without OPT's output projection, which is not called o_proj."""
    with pytest.raises(LoraTargetMissing, match="'o_proj' names no module of OPTForCausalLM"):
        add_lora(tiny_base("opt"), rank=4, alpha=8, dropout=0.0, targets=["q_proj", "o_proj"], seed=0)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["proj"], "'proj' names no module"),  # a part of a name is not the name
        (["embed_tokens"], "names a Embedding"),
        ([], "list of LoRA targets is empty"),
    ],
)
def test_targets_that_are_not_linear_modules_are_refused(targets: list[str], message: str):
    """What PEFT would take for something else, or for nothing, is an error with the target's name."""
    with pytest.raises(LoraTargetMissing, match=message):
        add_lora(tiny_base(), rank=4, alpha=8, dropout=0.0, targets=targets, seed=0)


def test_gpt2s_two_kinds_of_linear_modules_do_not_mix():
    """PEFT keeps one setting for whether weights are transposed."""
    with pytest.raises(LoraTargetMissing, match="mix Linear and Conv1D"):
        add_lora(tiny_base("gpt2"), rank=4, alpha=8, dropout=0.0, targets=["c_attn", "lm_head"], seed=0)


def test_an_unknown_family_asks_for_targets():
    """The message says what is known and what to do."""
    with pytest.raises(LoraTargetMissing, match=r"family 'mamba' \(known: .*llama.*name the target modules"):
        lora_targets("mamba")


@pytest.mark.parametrize("family", ["gpt2", "opt", *FAMILIES])
def test_a_runs_texts_must_fit_into_the_models_context(family: str):
    """Every family's limit is found, whatever its configuration calls it; the limit itself is allowed."""
    config = tiny_base(family).config.to_dict()
    require_context(config, name="tiny", max_tokens=128)
    with pytest.raises(ContextTooShort, match=r"may have 129 tokens, .* tiny takes 128: lower the run's max_tokens"):
        require_context(config, name="tiny", max_tokens=129)


@pytest.mark.parametrize("family", ["gpt2", "opt", *FAMILIES])
def test_a_models_context_is_known_from_its_file_too(family: str, tmp_path: Path):
    """Without transformers, also where the language model is a part of one that sees."""
    assert context_length(read_config(tiny_directory(tmp_path, family))) == 128


@pytest.mark.parametrize("config", [{}, {"max_position_embeddings": None}, {"text_config": {"hidden_size": 8}}])
def test_a_context_that_a_configuration_does_not_say_is_no_limit(config: dict[str, object]):
    """Some families have none."""
    assert context_length(config) is None
    require_context(config, name="endless", max_tokens=1_048_576)


def test_lora_starts_from_its_seed_and_disturbs_no_other_random_numbers():
    """Same seed, same bytes; another seed, other bytes; the caller's stream is as before."""
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, torch_state = adapter_tensors(tiny_lora(seed=3)), torch.get_rng_state()
    torch.manual_seed(2)
    two = adapter_tensors(tiny_lora(seed=3))
    other = adapter_tensors(tiny_lora(seed=4))
    assert torch.equal(state, torch_state)
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    assert any(one[name].tobytes() != other[name].tobytes() for name in one)


def test_lora_changes_nothing_before_it_is_trained():
    """The B matrices are zero, so the model with LoRA is the base model."""
    ids = torch.arange(8)[None]
    expected = tiny_base("gpt2")(ids).logits
    assert torch.equal(tiny_lora("gpt2")(ids).logits, expected)


def test_lora_is_float32_on_a_bfloat16_base():
    """The frozen base may be bf16; what trains and travels is float32."""
    model = add_lora(tiny_base().to(torch.bfloat16), rank=4, alpha=8, dropout=0.0, targets=None, seed=0)
    assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}
    assert {weight.dtype for weight in model.parameters() if not weight.requires_grad} == {torch.bfloat16}


def test_a_base_model_is_loaded_frozen_and_in_eval_mode(folder: Path):
    """The weights are the file's, in the format asked for."""
    model = load_base(folder, dtype="bfloat16", device=CPU)
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    exact = load_base(folder, dtype="float32", device=CPU)
    assert torch.equal(exact(torch.arange(8)[None]).logits, tiny_base()(torch.arange(8)[None]).logits)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_recomputed_activations_give_the_same_gradients_from_less_memory(family: str):
    """Dropout included, and to the bit: the setting costs time and nothing else."""
    kept, gradients = {}, {}
    for recompute in (False, True):
        model = tiny_lora(family, dropout=0.1, spread=0.3)
        if recompute:
            recompute_activations(model)
        model.train()
        saved: list[int] = []

        def count(tensor: torch.Tensor, saved: list[int] = saved) -> torch.Tensor:
            saved.append(tensor.numel())
            return tensor

        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = model(input_ids=torch.arange(24).view(2, 12), use_cache=False).logits.square().mean()
        kept[recompute] = sum(saved)
        loss.backward()
        gradients[recompute] = {
            name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None
        }
    assert kept[True] < kept[False] / 2
    assert gradients[True].keys() == gradients[False].keys()
    assert any(gradient.any() for gradient in gradients[True].values())
    for name, gradient in gradients[False].items():
        assert torch.equal(gradients[True][name], gradient), name


def test_four_bits_need_a_package_that_is_named(monkeypatch: pytest.MonkeyPatch):
    """A setting that this machine cannot serve is refused when it is read, with what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"dtype is nf4.*`pip install bitsandbytes` .*, or set dtype to"):
        require_dtype("nf4")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_base_model_in_four_bits_is_trained_and_scored(family: str, tmp_path: Path):
    """Its linear modules are packed, its LoRA is float32 and learns, and it answers much as the whole model does."""
    pytest.importorskip("bitsandbytes", reason="four bits need bitsandbytes")
    whole = tiny_base(family, hidden=64)  # weights are packed in blocks of 64
    whole.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    digest = base_model_digest(tmp_path)
    base = load_base(tmp_path, dtype="nf4", device=CPU)
    packed = [weight for weight in base.parameters() if weight.dtype == torch.uint8]
    assert packed
    assert not any(weight.requires_grad for weight in base.parameters())
    ids = torch.arange(8)[None]
    answers = [answering(ids).logits.flatten().float() for answering in (base, whole)]
    assert torch.corrcoef(torch.stack(answers))[0, 1] > 0.9
    model = add_lora(base, rank=4, alpha=8, dropout=0.0, targets=None, seed=0)
    assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}
    examples = [Encoded(tuple(range(10)), 6)] * 4
    report = train_local(
        model,
        examples,
        epochs=5,
        batch_size=2,
        optimiser=OptimiserTerms(learning_rate=1e-2),
        seed=1,
        vocab_size=260,
        on_step=lambda *_: None,
    )
    assert report.last_loss < report.first_loss
    assert {tensor.dtype.name for tensor in adapter_tensors(model).values()} == {"float32"}
    asked = encode_choices(tiny_tokenizer(), [Example("it is", ("red", "blue"), 0)], max_tokens=64)
    scored = evaluate(model, asked, batch_size=4, vocab_size=260, on_batch=lambda: None)
    assert scored.examples == 1
    assert base_model_digest(tmp_path) == digest


def test_in_four_bits_evaluation_does_not_change_what_is_learnt_after_it(tmp_path: Path):
    """A worker evaluates before it co-tunes; bitsandbytes would give it another kernel for that, and keep it."""
    pytest.importorskip("bitsandbytes", reason="four bits need bitsandbytes")
    tiny_base(hidden=64).save_pretrained(tmp_path)  # rows as long as that kernel needs

    def learnt(*, evaluated_first: bool) -> list[bytes]:
        base = load_base(tmp_path, dtype="nf4", device=CPU)
        model = add_lora(base, rank=4, alpha=8, dropout=0.0, targets=None, seed=0)
        if evaluated_first:
            with torch.no_grad():
                model.eval()(torch.arange(8)[None])
        train_local(
            model,
            [Encoded(tuple(range(10)), 6)] * 4,
            epochs=2,
            batch_size=2,
            optimiser=OptimiserTerms(learning_rate=1e-2),
            seed=1,
            vocab_size=260,
            on_step=lambda *_: None,
        )
        return [tensor.tobytes() for tensor in adapter_tensors(model).values()]

    assert learnt(evaluated_first=True) == learnt(evaluated_first=False)


def test_a_tokenizer_is_loaded_without_a_pad_token(folder: Path):
    """It encodes as the one that was saved."""
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_token is None
    assert tokenizer("is red")["input_ids"] == tiny_tokenizer()("is red")["input_ids"]


def test_a_folder_that_does_not_exist_is_unreadable(tmp_path: Path):
    """No request goes out for what looks like a path."""
    with pytest.raises(ModelUnreadable, match="there is no folder"):
        load_base(tmp_path / "none", dtype="float32", device=CPU)


def test_a_folder_without_configuration_weights_or_tokenizer_is_unreadable(folder: Path, tmp_path: Path):
    """Each message says which part is missing."""
    with pytest.raises(ModelUnreadable, match=r"has no config\.json"):
        load_base(tmp_path, dtype="float32", device=CPU)
    with pytest.raises(ModelUnreadable, match=r"has no config\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(ModelUnreadable, match=r"put its tokenizer\.json there"):
        load_tokenizer(tmp_path)
    with pytest.raises(ModelUnreadable, match="fetch the model's weights, or convert them to safetensors"):
        load_base(tmp_path, dtype="float32", device=CPU)


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path):
    """Loading a pickle runs its code: such a model has to be converted first, and that is what its user is told."""
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(ModelUnreadable, match=r"pytorch_model\.bin is not read.*: convert the model to safetensors"):
        load_base(tmp_path, dtype="float32", device=CPU)


def test_damaged_weights_are_unreadable(folder: Path, tmp_path: Path):
    """A file cut short by a full disk is told as such."""
    weights = copy_of(folder, tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelUnreadable, match=r"model\.safetensors is not a whole safetensors file"):
        load_base(tmp_path, dtype="float32", device=CPU)


def test_missing_tensors_are_not_replaced_by_random_ones(folder: Path, tmp_path: Path):
    """Transformers would fill them in and go on."""
    weights = copy_of(folder, tmp_path) / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.norm.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelUnreadable, match=r"lack 1 tensor\(s\) of the model, the first is 'model\.norm\.weight'"):
        load_base(tmp_path, dtype="float32", device=CPU)


def test_a_configuration_of_another_kind_is_unreadable(folder: Path, tmp_path: Path):
    """A model type that transformers does not know does not end in its traceback."""
    config = json.loads((copy_of(folder, tmp_path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "nonesuch"}))
    with pytest.raises(ModelUnreadable, match="no causal language model can be loaded"):
        load_base(tmp_path, dtype="float32", device=CPU)


def test_a_model_that_does_not_predict_the_next_token_is_refused(folder: Path, tmp_path: Path):
    """Transformers would load an encoder as if it were one, with a warning at most."""
    config = json.loads((copy_of(folder, tmp_path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["BertForMaskedLM"]}))
    with pytest.raises(ModelUnreadable, match=r"holds a BertForMaskedLM.*choose one that predicts the next token"):
        load_base(tmp_path, dtype="float32", device=CPU)


def test_a_model_cloned_without_its_large_files_is_told_so(folder: Path, tmp_path: Path):
    """What git leaves in their place is a line of text."""
    (copy_of(folder, tmp_path) / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelUnreadable, match="`git lfs pull`"):
        load_base(tmp_path, dtype="float32", device=CPU)


def test_devices_are_picked_by_name():
    """Auto always finds one; a device that is not there is a configuration error."""
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name, message in (("toaster", "is no device"), ("mps", "not supported"), ("cuda:99", "is none of them")):
        with pytest.raises(ConfigurationError, match=message):
            pick_device(name)


def test_devices_are_counted_from_zero(monkeypatch: pytest.MonkeyPatch):
    """Of one GPU, cuda:0 is it, and cuda:1 is none."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(ConfigurationError, match=r"has 1 CUDA device\(s\), and 'cuda:1' is none of them"):
        pick_device("cuda:1")
