import math

import pytest
import torch
from peft import PeftModel

from shared.errors import DataEmpty, LossNotFinite
from shared.ml import cotune as cotune_module
from shared.ml.adapters import adapter_tensors
from shared.ml.cotune import CotuneReport, cotune
from shared.ml.encoding import Encoded, batches
from shared.ml.seeding import derive_seed
from shared.ml.train import train_local
from shared.protocol.terms import CotuningTerms, OptimiserTerms
from tests.support.tiny_models import tiny_lora, tiny_tokenizer

VOCAB = len(tiny_tokenizer())
TERMS = CotuningTerms(
    passes=2,
    batch_size=4,
    distillation_weight=1.0,
    direction="forward",
    schedule="simultaneous",
    llm_optimiser=OptimiserTerms(learning_rate=0.01),
    slm_optimiser=OptimiserTerms(learning_rate=0.02),
)


def pair(llm_dropout: float = 0.0, slm_dropout: float = 0.0) -> tuple[PeftModel, PeftModel]:
    """An LLM and an SLM that share a tokenizer and differ in size and in the width of their heads."""
    llm = tiny_lora("qwen2", seed=1, hidden=48, vocab_size=304, dropout=llm_dropout, spread=0.3)
    return llm, tiny_lora("qwen2", seed=2, hidden=32, vocab_size=264, dropout=slm_dropout, spread=0.3)


def run(
    llm: PeftModel, slm: PeftModel, examples: list[Encoded], terms: CotuningTerms = TERMS, seed: int = 5
) -> CotuneReport:
    """Co-tuning, observed by nobody."""
    return cotune(llm, slm, examples, terms=terms, seed=seed, vocab_size=VOCAB, on_step=lambda *_: None)


def lora_bytes(model: PeftModel) -> bytes:
    return b"".join(tensor.tobytes() for tensor in adapter_tensors(model).values())


def naive_log_p(model: PeftModel, batch: list[Encoded]) -> torch.Tensor:
    """Log-probabilities at the answers, sequence by sequence, cut to the tokenizer."""
    parts = []
    for one in batch:
        logits_TV = model(input_ids=torch.tensor([one.token_ids])).logits[0, :, :VOCAB]
        parts.append(logits_TV[one.answer_start - 1 : -1].log_softmax(-1))
    return torch.cat(parts)


def naive_loss(own_NV: torch.Tensor, peer_NV: torch.Tensor, batch: list[Encoded], terms: CotuningTerms) -> torch.Tensor:
    """L = CE + lambda KL (Eq. 6), each a mean per answer token."""
    labels_N = torch.tensor([token for one in batch for token in one.token_ids[one.answer_start :]])
    p_NV, q_NV = (peer_NV, own_NV) if terms.direction == "forward" else (own_NV, peer_NV)
    kl_N = (p_NV.exp() * (p_NV - q_NV)).sum(-1)
    if terms.distils == "where_peer_is_better":
        each = torch.arange(len(labels_N))
        kl_N = torch.where(peer_NV[each, labels_N] > own_NV[each, labels_N], kl_N, 0)
    kl = kl_N.mean()
    return -own_NV[torch.arange(len(labels_N)), labels_N].mean() + terms.distillation_weight * kl


def naive_cotune(llm: PeftModel, slm: PeftModel, examples: list[Encoded], terms: CotuningTerms, seed: int) -> None:
    """Alg. 1's server loop, written down as simply as it can be."""
    lora = {model: [weight for weight in model.parameters() if weight.requires_grad] for model in (llm, slm)}
    adamw = {
        model: torch.optim.AdamW(lora[model], lr=of.learning_rate, betas=(0.9, 0.95), weight_decay=0)
        for model, of in ((llm, terms.llm_optimiser), (slm, terms.slm_optimiser))
    }

    def update(model: PeftModel, loss: torch.Tensor) -> None:
        gradients = torch.autograd.grad(loss, lora[model])
        norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients))
        for weight, gradient in zip(lora[model], gradients, strict=True):
            weight.grad = gradient * min(1.0, float(1 / (norm + 1e-6)))
        adamw[model].step()

    for one_pass in range(terms.passes):
        for batch in batches(examples, batch_size=terms.batch_size, seed=derive_seed(seed, one_pass)):
            f_NV, g_NV = naive_log_p(llm, batch), naive_log_p(slm, batch)
            loss_g = naive_loss(g_NV, f_NV.detach(), batch, terms)
            if terms.schedule == "sequential":
                update(slm, loss_g)
                update(llm, naive_loss(f_NV, naive_log_p(slm, batch).detach(), batch, terms))
            else:
                loss_f = naive_loss(f_NV, g_NV.detach(), batch, terms)
                update(slm, loss_g)
                update(llm, loss_f)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("schedule", ["simultaneous", "sequential"])
@pytest.mark.parametrize("distils", ["everywhere", "where_peer_is_better"])
def test_co_tuning_is_the_papers_loop(distils: str, schedule: str, direction: str, encoded: list[Encoded]):
    """Every setting of it against a naive loop, over two head widths (Eq. 4 to 6, Alg. 1)."""
    settings = {"distils": distils, "schedule": schedule, "direction": direction, "distillation_weight": 0.7}
    terms = TERMS.model_copy(update=settings)
    ours, naive = pair(), pair()
    run(*ours, encoded, terms)
    naive_cotune(*naive, encoded, terms, seed=5)
    for one, other, start in zip(ours, naive, pair(), strict=True):
        for weight, expected, before in zip(one.parameters(), other.parameters(), start.parameters(), strict=True):
            # AdamW divides by the gradient's size: where that is nearly zero, rounding shows. Another schedule,
            # direction or lambda moves weights by 0.01 and more.
            torch.testing.assert_close(weight, expected, atol=5e-4, rtol=0)
            assert weight.requires_grad != torch.equal(weight, before)


def test_the_schedules_differ_in_the_llm_first(encoded: list[Encoded]):
    """In one step the SLM's update is the same; the LLM learns from the SLM before it, or after it."""
    one_step = TERMS.model_copy(update={"passes": 1, "batch_size": 10})
    llms, slms = [], []
    for schedule in ("simultaneous", "sequential"):
        llm, slm = pair()
        run(llm, slm, encoded, one_step.model_copy(update={"schedule": schedule}))
        slms.append(lora_bytes(slm))
        llms.append(lora_bytes(llm))
    assert slms[0] == slms[1]
    assert llms[0] != llms[1]


def test_simultaneous_updates_do_not_depend_on_which_comes_first(encoded: list[Encoded]):
    """Changing places, LLM and SLM get the same updates: both use the values before the step."""
    same = TERMS.model_copy(update={"slm_optimiser": TERMS.llm_optimiser})
    llm, slm = pair()
    run(llm, slm, encoded, same)
    slm_first, llm_second = pair()
    run(llm_second, slm_first, encoded, same)
    assert lora_bytes(llm) == lora_bytes(slm_first)
    assert lora_bytes(slm) == lora_bytes(llm_second)


def test_the_directions_differ(encoded: list[Encoded]):
    """Forward and reverse KL lead both models elsewhere."""
    results = []
    for direction in ("forward", "reverse"):
        llm, slm = pair()
        run(llm, slm, encoded, TERMS.model_copy(update={"direction": direction}))
        results.append((lora_bytes(llm), lora_bytes(slm)))
    assert results[0][0] != results[1][0]
    assert results[0][1] != results[1][1]


def test_no_passes_change_nothing(encoded: list[Encoded]):
    """FedAvg-only is this engine with R = 0: theta stays the average, to the byte."""
    llm, slm = pair()
    before = lora_bytes(llm), lora_bytes(slm)
    report = run(llm, slm, encoded, TERMS.model_copy(update={"passes": 0}))
    assert report == CotuneReport(0, 0.0, 0.0, 0.0, 0.0)
    assert (lora_bytes(llm), lora_bytes(slm)) == before


@pytest.mark.parametrize("schedule", ["simultaneous", "sequential"])
def test_lambda_zero_is_each_model_trained_alone_on_the_auxiliary_data(
    schedule: str, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch
):
    """The control runs through the same engine, computes no divergence, and equals local training to the byte."""

    def never(*_: object) -> torch.Tensor:
        raise AssertionError("a divergence was computed")

    monkeypatch.setattr(cotune_module, "distillation", never)
    terms = TERMS.model_copy(update={"distillation_weight": 0.0, "schedule": schedule})
    tuned = pair()
    report = run(*tuned, encoded, terms)
    assert (report.llm_distillation, report.slm_distillation) == (0.0, 0.0)
    for model, alone, optimiser, loss in zip(
        tuned,
        pair(),
        (terms.llm_optimiser, terms.slm_optimiser),
        (report.llm_loss, report.slm_loss),
        strict=True,
    ):
        trained = train_local(
            alone,
            encoded,
            epochs=terms.passes,
            batch_size=terms.batch_size,
            optimiser=optimiser,
            seed=5,
            vocab_size=VOCAB,
            on_step=lambda *_: None,
        )
        assert lora_bytes(model) == lora_bytes(alone)
        assert loss == trained.mean_loss


def test_a_wider_head_does_not_matter(encoded: list[Encoded]):
    """Entries beyond the tokenizer take no part: whatever they say, the updates are the same."""
    results = []
    for shout in (0.0, 50.0):
        llm, slm = tiny_lora(seed=1, vocab_size=304, spread=0.3), tiny_lora(seed=2, spread=0.3)
        with torch.no_grad():
            llm.get_base_model().get_output_embeddings().weight[VOCAB:] += shout
        run(llm, slm, encoded)
        results.append((lora_bytes(llm), lora_bytes(slm)))
    assert results[0] == results[1]


def test_a_large_lambda_draws_the_models_together(encoded: list[Encoded]):
    """After co-tuning with lambda = 10 the models agree far better than after the same steps with lambda = 0."""
    still = OptimiserTerms.model_construct(learning_rate=0.0)
    probe = TERMS.model_copy(update={"passes": 1, "llm_optimiser": still, "slm_optimiser": still})
    divergences = []
    for weight in (0.0, 10.0):
        llm, slm = pair()
        run(llm, slm, encoded, TERMS.model_copy(update={"passes": 8, "distillation_weight": weight}))
        divergences.append(run(llm, slm, encoded, probe).slm_distillation)
    assert divergences[1] < 0.5 * divergences[0]


def test_every_step_is_reported_with_its_loss(encoded: list[Encoded]):
    """What on_step sees is L2 (Eq. 6); the report tells its parts apart; both models are left in eval mode."""
    llm, slm = pair()
    terms = TERMS.model_copy(update={"distillation_weight": 0.5})
    steps: list[tuple[int, int, float]] = []
    report = cotune(llm, slm, encoded, terms=terms, seed=0, vocab_size=VOCAB, on_step=lambda *step: steps.append(step))
    assert [(step, total) for step, total, _ in steps] == [(step, 6) for step in range(1, 7)]
    parts = report.llm_loss + report.slm_loss + 0.5 * (report.llm_distillation + report.slm_distillation)
    assert math.fsum(loss for *_, loss in steps) / 6 == pytest.approx(parts)
    assert report.steps == 6
    assert not llm.training
    assert not slm.training


@pytest.mark.parametrize("schedule", ["simultaneous", "sequential"])
def test_the_same_seed_gives_the_same_bytes(schedule: str, encoded: list[Encoded]):
    """With dropout, whatever was drawn before; another seed gives others; the caller's random state is as before."""
    results = []
    for seed, noise in ((1, 10), (1, 20), (2, 10)):
        llm, slm = pair(0.2, 0.2)
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        run(llm, slm, encoded, TERMS.model_copy(update={"schedule": schedule}), seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        results.append((lora_bytes(llm), lora_bytes(slm)))
    assert results[0] == results[1]
    assert results[0][0] != results[2][0]
    assert results[0][1] != results[2][1]


@pytest.mark.parametrize("schedule", ["simultaneous", "sequential"])
@pytest.mark.parametrize("which", [0, 1], ids=["LLM", "SLM"])
def test_dropout_is_active_in_co_tuning(schedule: str, which: int, encoded: list[Encoded]):
    """With LoRA dropout in one of the models, that one ends with other weights than without."""
    results = []
    for dropout in (0.0, 0.5):
        dropouts = [0.0, 0.0]
        dropouts[which] = dropout
        models = pair(*dropouts)
        run(*models, encoded, TERMS.model_copy(update={"schedule": schedule}))
        results.append(lora_bytes(models[which]))
    assert results[0] != results[1]


@pytest.mark.parametrize("schedule", ["simultaneous", "sequential"])
@pytest.mark.parametrize("which", ["LLM", "SLM"])
def test_a_nan_is_told_with_its_step_and_model(schedule: str, which: str, encoded: list[Encoded]):
    """The model whose loss is NaN is named; both are left in eval mode."""
    llm, slm = pair()
    broken = llm if which == "LLM" else slm
    with torch.no_grad():
        next(weight for name, weight in broken.named_parameters() if "v_proj.lora_A" in name)[0, 0] = math.nan
    with pytest.raises(LossNotFinite, match=r"^the (cross-entropy|distillation) of step 1 of 6 of the [LS]LM is nan:"):
        run(llm, slm, encoded, TERMS.model_copy(update={"schedule": schedule}))
    assert not llm.training
    assert not slm.training


def test_no_auxiliary_data_is_an_error():
    """There is nothing to co-tune on, and the settings ask for it."""
    with pytest.raises(DataEmpty):
        run(*pair(), [])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device beside the CPU")
def test_the_models_may_be_on_different_devices(encoded: list[Encoded]):
    """The LLM on the GPU and the SLM on the CPU, or the reverse, give the same result as both on one."""
    expected = pair()
    run(*expected, encoded)
    for llm_device, slm_device in (("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")):
        llm, slm = pair()
        llm.to(llm_device)
        slm.to(slm_device)
        run(llm, slm, encoded)
        for one, other in zip((llm, slm), expected, strict=True):
            for weight, reference in zip(one.parameters(), other.parameters(), strict=True):
                torch.testing.assert_close(weight.cpu(), reference, atol=1e-3, rtol=1e-2)
