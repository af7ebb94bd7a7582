import json
import re
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bench import derive_slm
from bench.command_line import above_zero
from bench.derive_slm import Budget, choose_and_cut, heal, heal_and_measure, write_model
from bench.plain_text import HELD_OUT_TEXTS, Texts, passages, read_texts, text_files
from bench.prune import (
    Influence,
    Trace,
    block_influence,
    compare_next_tokens,
    cut,
    decoder_layers,
    distillation_step,
    healing_loss,
    layers_to_keep,
    layers_train,
    trace,
)
from shared.errors import ConfigurationError, DataEmpty, DataUnreadable, LossNotFinite, ModelUnreadable
from shared.ml.digests import base_model_digest, tokenizer_digest
from shared.ml.models import load_base, load_tokenizer
from tests.support.tiny_models import FAMILIES, tiny_base, tiny_directory, tiny_tokenizer

CPU = torch.device("cpu")
IDS_BT = torch.randint(0, 260, (4, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def texts() -> Texts:
    """Two hundred texts in which every token follows from the one before it."""
    starts_N = torch.arange(200)
    ids_NT = (starts_N[:, None] * 7 + 3 * torch.arange(8)) % 260
    return Texts(held_out_NT=ids_NT[:8], training_NT=ids_NT[8:])


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A file of plain text."""
    file = tmp_path / "book.txt"
    file.write_text("\n".join(f"line {number} is red, line {number * 7} is blue" for number in range(800)))
    return file


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS_BT).logits
    return found


def test_a_layer_that_does_nothing_has_no_influence():
    """Its output is its input; that of any other layer is not."""
    model = tiny_base()
    idle = decoder_layers(model)[1]
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        torch.nn.init.zeros_(idle.get_submodule(name).weight)

    acting, nothing = block_influence(model, [IDS_BT[:2], IDS_BT[2:]])

    assert (nothing.everywhere, nothing.first) == pytest.approx((0, 0), abs=1e-6)
    assert acting.rank > 0.01


def test_influence_does_not_depend_on_how_texts_are_batched():
    """It is a mean over texts, the first token's being one over first tokens alone."""
    model = tiny_base()
    whole = block_influence(model, [IDS_BT])
    parts = block_influence(model, [IDS_BT[:1], IDS_BT[1:]])
    alone = block_influence(model, [IDS_BT[:, :1]])

    assert [one.everywhere for one in parts] == pytest.approx([one.everywhere for one in whole])
    assert [one.first for one in whole] == pytest.approx([one.everywhere for one in alone], abs=1e-6)


def test_the_layers_that_do_most_are_kept():
    """In their order, the first and last whatever they do, a layer that acts on first tokens alone, of equals one."""
    influences = [
        Influence(everywhere, first) for everywhere, first in ((0, 0), (0.1, 0), (0.3, 0), (0.3, 0), (0, 0.9), (0, 0))
    ]

    assert layers_to_keep(influences, 4) == (0, 2, 4, 5)
    assert layers_to_keep(influences, 6) == (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("count", [0, 2, 7])
def test_a_number_of_layers_that_cannot_be_kept_is_refused(count: int):
    """More than there are, or none between the first and the last."""
    with pytest.raises(ConfigurationError, match=f"{count} of 6 layers"):
        layers_to_keep([Influence(0.1, 0.1)] * 6, count)


@pytest.mark.parametrize("family", [*FAMILIES, "gpt2", "opt"])
def test_a_model_with_all_layers_kept_is_the_llm(family: str):
    """Cutting nothing changes nothing, and the copy shares no weight with the LLM."""
    llm = tiny_base(family)
    student = cut(llm, (0, 1))

    assert torch.equal(logits(student), logits(llm))
    assert not {weight.data_ptr() for weight in student.parameters()} & {one.data_ptr() for one in llm.parameters()}


@pytest.mark.parametrize("family", [*FAMILIES, "gpt2", "opt"])
def test_a_cut_is_consistent_once_written_and_loaded(family: str, tmp_path: Path):
    """Configuration, kinds of layer and weights fit: the loaded model computes what the cut did, with a cache too."""
    llm = tiny_base(family, layers=4)
    student = cut(llm, (0, 2, 3))
    folder = tmp_path / "llm"
    llm.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    write_model(student, llm=folder, into=tmp_path / "slm")
    loaded = load_base(tmp_path / "slm", dtype="float32", device=CPU)
    config = loaded.config.get_text_config()

    assert config.num_hidden_layers == len(decoder_layers(loaded)) == 3
    if getattr(llm.config.get_text_config(), "layer_types", None):
        kinds = llm.config.get_text_config().layer_types
        assert list(config.layer_types) == [kinds[0], kinds[2], kinds[3]]
    assert torch.allclose(logits(loaded), logits(student), atol=1e-5)
    with torch.no_grad():
        past = student(input_ids=IDS_BT[:, :5], use_cache=True).past_key_values
        rest = student(input_ids=IDS_BT[:, 5:], past_key_values=past).logits
    assert torch.allclose(rest, logits(student)[:, 5:], atol=1e-4)


def test_a_model_whose_layers_cannot_be_told_apart_is_refused():
    """Two lists of as many modules, or none: no guess is made."""
    model = tiny_base()
    model.model.more = torch.nn.ModuleList([torch.nn.Identity()] * 2)
    with pytest.raises(ModelUnreadable, match="2 lists of 2 modules"):
        decoder_layers(model)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "opt"])
def test_the_next_tokens_of_chosen_positions_are_those_of_the_model(family: str):
    """What a family does to logits after the head is done to them too; the last state leads to them."""
    model = tiny_base(family)
    chosen_Q = torch.tensor([0, 5, 40])
    traced = trace(model, IDS_BT, chosen_Q)

    assert torch.allclose(traced.log_QV, logits(model).flatten(0, 1)[chosen_Q].log_softmax(-1), atol=1e-6)
    assert len(traced.states_BTD) == 3


def test_healing_brings_the_cut_closer_to_the_llm(texts: Texts):
    """On texts that it never learnt from; only its layers change, and the LLM does not."""
    llm = tiny_base(layers=4)
    before = {name: weight.clone() for name, weight in llm.named_parameters()}
    student = cut(llm, (0, 2, 3))
    before_healing = compare_next_tokens(student, llm, [texts.held_out_NT])
    heal(student, llm, texts.training_NT, keep=(0, 2, 3), budget=Budget(steps=30), batch=8, learning_rate=3e-3, seed=1)
    after = compare_next_tokens(student, llm, [texts.held_out_NT])

    assert after.divergence < 0.8 * before_healing.divergence
    assert after.llm_loss == before_healing.llm_loss
    assert all(torch.equal(weight, before[name]) for name, weight in llm.named_parameters())
    same = {name for name, weight in student.named_parameters() if name in before and torch.equal(weight, before[name])}
    assert same == {name for name in before if ".layers." not in name}
    assert not any(weight.requires_grad for weight in student.parameters())


def test_the_llms_distance_to_itself_is_zero(texts: Texts):
    """And its loss is the cross-entropy that transformers computes."""
    llm = tiny_base()
    found = compare_next_tokens(llm, llm, torch.split(texts.held_out_NT, 3))
    with torch.no_grad():
        expected = float(llm(input_ids=texts.held_out_NT, labels=texts.held_out_NT).loss)

    assert (found.own_loss, found.llm_loss, found.divergence) == pytest.approx((expected, expected, 0), abs=1e-5)


def test_a_loss_that_is_not_finite_ends_healing():
    """Nothing is changed by it."""
    llm = tiny_base()
    student = cut(llm, (0, 1))
    decoder_layers(student)[1].mlp.down_proj.weight.data.fill_(float("nan"))
    with layers_train(student) as weights:
        optimiser = torch.optim.AdamW(weights)
        with pytest.raises(LossNotFinite, match="learning rate"):
            distillation_step(student, llm, optimiser, keep=(0, 1), token_ids_BT=IDS_BT, chosen_Q=torch.tensor([0]))


def test_minutes_are_a_budget_too(texts: Texts):
    """Healing ends when they are over, and says every ten seconds how far it is."""
    llm = tiny_base(layers=4)
    now = iter(range(0, 1000, 4))
    said: list[str] = []
    steps = heal(
        cut(llm, (0, 1, 3)),
        llm,
        texts.training_NT,
        keep=(0, 1, 3),
        budget=Budget(minutes=1),
        batch=2,
        learning_rate=1e-3,
        seed=1,
        clock=lambda: float(next(now)),
        say=said.append,
    )

    assert 5 <= steps <= 15
    assert said
    assert all("% of the budget" in line for line in said)


def test_the_same_seed_gives_the_same_model(texts: Texts):
    """Bit by bit on one machine with as many threads; another seed gives another."""

    def derived(seed: int) -> list[torch.Tensor]:
        llm = tiny_base(layers=4)
        made = choose_and_cut(llm, texts, layers=3, batch=4, say=lambda _: None)
        heal_and_measure(
            made, llm, texts, budget=Budget(steps=2), batch=4, learning_rate=1e-3, seed=seed, say=lambda _: None
        )
        return list(made.student.parameters())

    first, again, other = derived(1), derived(1), derived(2)

    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(first, other, strict=True))


def test_held_out_texts_are_never_learnt_from(book: Path):
    """Nor is any part of one; the draw depends on the seed, not on the order of the files."""
    texts = read_texts([book], tiny_tokenizer(), tokens=8, at_most=300, seed=1)
    held_out, training = ({tuple(row) for row in rows.tolist()} for rows in (texts.held_out_NT, texts.training_NT))

    assert len(held_out) == HELD_OUT_TEXTS
    assert len(held_out) + len(training) == 300
    assert not held_out & training
    assert read_texts([book], tiny_tokenizer(), tokens=8, at_most=80, seed=1).held_out_digest == texts.held_out_digest
    assert read_texts([book], tiny_tokenizer(), tokens=8, at_most=80, seed=2).held_out_digest != texts.held_out_digest


def test_passages_are_whole_lines_that_do_not_overlap():
    """Each has as many characters as were asked for, or a little more."""
    found = list(passages("one\ntwo\nthree\nfour\nfive\nsix", 8))

    assert found == ["one\ntwo", "three\nfour", "five\nsix"]


def test_text_that_is_not_there_is_said_so(tmp_path: Path, book: Path):
    """A path that leads nowhere, a folder without text, too little text, no text at all."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "pixels.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataUnreadable, match="does not exist"):
        text_files([tmp_path / "nowhere"])
    with pytest.raises(DataEmpty, match=r"no \.txt file"):
        text_files([tmp_path / "empty"])
    with pytest.raises(DataEmpty, match="passages of 400 tokens"):
        read_texts([book], tiny_tokenizer(), tokens=400, at_most=300, seed=1)
    with pytest.raises(DataUnreadable, match="UTF-8"):
        read_texts([tmp_path / "pixels.txt"], tiny_tokenizer(), tokens=8, at_most=300, seed=1)


@pytest.fixture
def command(tmp_path: Path, book: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command line that derives a model from a tiny LLM; the folder that it is to make."""
    tiny_directory(tmp_path / "llm")
    out = tmp_path / "made" / "slm"
    out.parent.mkdir()
    line = f"derive_slm --model {tmp_path / 'llm'} --text {book} --layers 2 --out {out} --steps 2 --tokens 8 --texts 80"
    monkeypatch.setattr(sys, "argv", line.split())
    return out


def test_the_command_writes_an_ordinary_model(command: Path, tmp_path: Path):
    """With the LLM's tokenizer and a report; and it does not write over what it made."""
    assert derive_slm.main() == 0
    report = json.loads((command / "derived.json").read_text())

    assert tokenizer_digest(load_tokenizer(command)) == tokenizer_digest(load_tokenizer(tmp_path / "llm"))
    assert base_model_digest(command) != base_model_digest(tmp_path / "llm")
    assert report["kept_layers"] == [0, 1]
    assert (report["steps"], report["tokens_seen"], report["seed"]) == (2, 64, 1)
    assert report["held_out"]["loss_cut"] == report["held_out"]["loss_llm"]
    assert load_file(command / "model.safetensors")
    assert derive_slm.main() == 2


@pytest.mark.parametrize("where", ["distillation_step", "require_same"])
def test_an_interrupted_run_leaves_nothing(command: Path, monkeypatch: pytest.MonkeyPatch, where: str):
    """Whether it learns or writes when Ctrl-C comes."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(derive_slm, where, interrupt)

    assert derive_slm.main() == 130
    assert list(command.parent.iterdir()) == []


def test_a_model_that_loads_as_another_is_refused_before_it_is_healed(
    command: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """A family may keep something of each layer where cutting does not look: nobody is to wait for that to show."""

    def load(folder: Path, **how: Any) -> Any:  # noqa: ANN401 - transformers has no types
        return load_base(folder, **how) if folder == tmp_path / "llm" else tiny_base(seed=5)

    monkeypatch.setattr(derive_slm, "load_base", load)
    monkeypatch.setattr(derive_slm, "heal", lambda *_, **__: pytest.fail("it was healed"))

    assert derive_slm.main() == 2
    assert list(command.parent.iterdir()) == []


def test_a_tokenizer_that_is_another_one_beside_the_slm_is_refused(
    command: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """What was copied may not be all that it was made of."""
    digests = iter(["sha256:1", "sha256:2"])
    monkeypatch.setattr(derive_slm, "tokenizer_digest", lambda _: next(digests))

    assert derive_slm.main() == 2
    assert "is another one there" in capsys.readouterr().err
    assert list(command.parent.iterdir()) == []


def test_texts_that_the_llm_does_not_take_are_refused(
    command: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Some families go on beyond their context, and make nonsense."""
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--tokens=200"])

    assert derive_slm.main() == 2
    assert "takes 128" in capsys.readouterr().err
    assert not command.exists()


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_computed(
    command: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Not after an hour of healing."""
    (command.parent / "file").write_text("")
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--out", str(command.parent / "file" / "slm")])
    monkeypatch.setattr(derive_slm, "load_base", lambda *_, **__: pytest.fail("a model was loaded"))

    assert derive_slm.main() == 2
    assert "output_unwritable: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    ["steps=-1", "tokens=1", "batch=0", "threads=0", "texts=1", "learning-rate=nan", "learning-rate=0", "seed=-1"],
)
def test_numbers_that_cannot_be_are_refused_by_name(
    command: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
):
    """They would end in a loop without end, a loss that is no number, or a traceback."""
    monkeypatch.setattr(sys, "argv", [*sys.argv, f"--{option}"])
    with pytest.raises(SystemExit):
        derive_slm.main()

    assert re.search(rf"argument --{option.partition('=')[0]}: .* is no (whole )?number", capsys.readouterr().err)
    assert not command.exists()


@pytest.mark.parametrize("minutes", ["-1", "0", "nan", "inf", "soon"])
def test_minutes_are_a_number_above_zero(minutes: str):
    """Others would never end, or never begin."""
    with pytest.raises(ArgumentTypeError, match="is no number above zero"):
        above_zero(minutes)
    assert above_zero("0.5") == 0.5


def test_the_report_has_the_whole_command_and_no_folder_of_the_machine(command: Path, tmp_path: Path):
    """Also what was not said, because defaults change."""
    assert derive_slm.main() == 0
    said = json.loads((command / "derived.json").read_text())["command"]

    assert said[:9] == ["python", "-m", "bench.derive_slm", "--model", "llm", "--text", "book.txt", "--layers", "2"]
    assert said[said.index("--batch") + 1] == "4"
    assert "--minutes" not in said
    assert not [word for word in said if str(tmp_path) in word]


def test_each_layer_learns_what_the_llm_hands_to_the_layer_that_was_kept_next():
    """A model whose states are those of the LLM there has nothing to learn; one that is off by a layer has."""
    states_BTD = [torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(layer)) for layer in range(5)]
    llm = Trace(states_BTD, states_BTD[4], torch.zeros(2, 5))

    def loss(*layers: int) -> float:
        own = Trace([states_BTD[layer] for layer in layers], states_BTD[4], torch.zeros(2, 5))
        return float(healing_loss(own, llm, keep=(0, 2, 3)))

    assert loss(0, 2, 3, 4) == 0
    assert loss(0, 1, 3, 4) > 0.1
    assert loss(0, 2, 2, 4) > 0.1


def test_a_step_is_no_longer_than_a_gradient_of_norm_one():
    """A text that the cut makes nothing of is not to undo what others taught it."""
    llm = tiny_base(layers=4)
    student = cut(llm, (0, 2, 3))
    with layers_train(student) as weights:
        before = [weight.clone() for weight in weights]
        distillation_step(
            student,
            llm,
            torch.optim.SGD(weights, lr=1.0),
            keep=(0, 2, 3),
            token_ids_BT=IDS_BT,
            chosen_Q=torch.arange(48),
        )
        moved = torch.cat([(weight - old).flatten() for weight, old in zip(weights, before, strict=True)])
    assert float(moved.detach().norm()) == pytest.approx(1, abs=1e-3)


def test_the_learning_rate_rises_and_falls_over_the_budget(texts: Texts, monkeypatch: pytest.MonkeyPatch):
    """From a little, to the whole at once, to a small rest."""
    rates: list[float] = []

    def step(_: object, __: object, optimiser: torch.optim.Optimizer, **___: object) -> float:
        rates.append(optimiser.param_groups[0]["lr"])
        return 0.0

    monkeypatch.setattr(derive_slm, "distillation_step", step)
    llm = tiny_base()
    heal(llm, llm, texts.training_NT, keep=(0, 1), budget=Budget(steps=100), batch=2, learning_rate=1.0, seed=1)

    assert rates[0] == pytest.approx(0.1, abs=0.01)
    assert max(rates) == rates[3] > 0.99
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] == pytest.approx(0.05, abs=0.01)
