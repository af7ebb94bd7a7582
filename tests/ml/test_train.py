import math

import pytest
import torch
from peft import PeftModel

from shared.errors import DataEmpty, LossNotFinite
from shared.ml.adapters import adapter_tensors
from shared.ml.encoding import Encoded, batches
from shared.ml.seeding import derive_seed
from shared.ml.train import TrainReport, train_local
from shared.protocol.terms import OptimiserTerms
from tests.support.tiny_models import tiny_lora, tiny_tokenizer

VOCAB = len(tiny_tokenizer())
FAST = OptimiserTerms(learning_rate=0.01)


def train(
    model: PeftModel, examples: list[Encoded], *, epochs: int = 2, seed: int = 0, optimiser: OptimiserTerms = FAST
) -> TrainReport:
    """Local training in batches of four, observed by nobody."""
    return train_local(
        model,
        examples,
        epochs=epochs,
        batch_size=4,
        optimiser=optimiser,
        seed=seed,
        vocab_size=VOCAB,
        on_step=lambda *_: None,
    )


def lora_bytes(model: PeftModel) -> bytes:
    return b"".join(tensor.tobytes() for tensor in adapter_tensors(model).values())


def poison(model: PeftModel) -> None:
    """One NaN among the weights, as a damaged file or a diverged round would leave.

    Of the values': PyTorch's attention on CPUs hides one in queries or keys of fewer than 16 tokens from the loss, and
    the gradient shows it.
    """
    weight = next(weight for name, weight in model.named_parameters() if "v_proj.lora_A" in name)
    with torch.no_grad():
        weight[0, 0] = math.nan


def test_training_learns_the_answers(encoded: list[Encoded]):
    """The loss falls far below where it began, and the model is left in eval mode."""
    model = tiny_lora(dropout=0.05)
    report = train(model, encoded, epochs=20, optimiser=OptimiserTerms(learning_rate=0.03))
    assert report.last_loss < 0.5 * report.first_loss
    assert report.mean_loss < report.first_loss
    assert not model.training


def test_the_loop_is_plain_adamw_on_the_answers(encoded: list[Encoded]):
    """Against a naive loop: unpadded sequences, labels by hand, clipping, torch's AdamW (Eq. 1, Alg. 1)."""
    trained, naive = tiny_lora(spread=0.1), tiny_lora(spread=0.1)
    clipped = OptimiserTerms(learning_rate=0.01, weight_decay=0.1, clip_norm=0.5)
    report = train(trained, encoded, seed=7, optimiser=clipped)
    weights = [weight for weight in naive.parameters() if weight.requires_grad]
    adamw = torch.optim.AdamW(weights, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    losses = []
    for epoch in range(2):
        for batch in batches(encoded, batch_size=4, seed=derive_seed(7, epoch)):
            terms = []
            for one in batch:
                log_p = naive(input_ids=torch.tensor([one.token_ids])).logits[0, :, :VOCAB].log_softmax(-1)
                terms += [-log_p[i - 1, one.token_ids[i]] for i in range(one.answer_start, len(one.token_ids))]
            loss = sum(terms) / len(terms)
            adamw.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 0.5)
            adamw.step()
            losses.append(loss.item())
    assert [report.steps, report.first_loss, report.last_loss, report.mean_loss] == pytest.approx(
        [6, losses[0], losses[-1], sum(losses) / 6], rel=1e-5
    )
    for ours, theirs in zip(trained.parameters(), naive.parameters(), strict=True):
        # AdamW divides by the gradient's size: where that is nearly zero, rounding shows. Six steps move up to 0.06.
        torch.testing.assert_close(ours, theirs, atol=5e-4, rtol=0)


def test_the_same_seed_gives_the_same_bytes_whatever_happened_before(encoded: list[Encoded]):
    """Order and dropout come from the seed; the caller's random state is neither read nor changed."""
    results = []
    for seed, noise in ((1, 10), (1, 20), (2, 10)):
        model = tiny_lora(dropout=0.2)
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        train(model, encoded, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        results.append(lora_bytes(model))
    assert results[0] == results[1]
    assert results[0] != results[2]


def test_dropout_is_active_in_training(encoded: list[Encoded]):
    """With LoRA dropout the same order of data gives other weights than without."""
    results = []
    for dropout in (0.0, 0.5):
        model = tiny_lora(dropout=dropout, spread=0.1)
        train(model, encoded)
        results.append(lora_bytes(model))
    assert results[0] != results[1]


def test_only_lora_changes(encoded: list[Encoded]):
    """The frozen base has the same bytes after training."""
    model = tiny_lora()
    before = {name: weight.clone() for name, weight in model.named_parameters() if not weight.requires_grad}
    train(model, encoded)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters() if name in before)


def test_every_step_is_reported(encoded: list[Encoded]):
    """Steps count from 1 to the number known beforehand; ten examples in fours are three steps an epoch."""
    seen: list[tuple[int, int, float]] = []
    report = train_local(
        tiny_lora(),
        encoded,
        epochs=2,
        batch_size=4,
        optimiser=FAST,
        seed=0,
        vocab_size=VOCAB,
        on_step=lambda *step: seen.append(step),
    )
    assert [(step, total) for step, total, _ in seen] == [(step, 6) for step in range(1, 7)]
    assert (report.steps, report.first_loss, report.last_loss) == (6, seen[0][2], seen[-1][2])


def test_a_second_call_starts_with_a_fresh_optimiser(encoded: list[Encoded]):
    """Nothing but the weights is carried over: continuing equals starting from a copy of them."""
    model = tiny_lora()
    train(model, encoded, seed=1)
    copy = tiny_lora()
    copy.load_state_dict(model.state_dict())
    train(model, encoded, seed=2)
    train(copy, encoded, seed=2)
    assert lora_bytes(model) == lora_bytes(copy)


def test_a_nan_loss_stops_at_its_step(encoded: list[Encoded]):
    """The error names the step; nothing was stepped, and the model is in eval mode again."""
    model = tiny_lora()
    poison(model)
    before = lora_bytes(model)
    with pytest.raises(LossNotFinite, match="the loss of step 1 of 6 is nan: lower the learning rate"):
        train(model, encoded)
    assert lora_bytes(model) == before
    assert not model.training


def test_a_loss_that_diverges_stops_when_it_does(encoded: list[Encoded]):
    """The first step was sound, the second is the one to be told."""
    with pytest.raises(LossNotFinite, match="step 2 of 6"):
        train(tiny_lora(), encoded, optimiser=OptimiserTerms.model_construct(learning_rate=1e37))


def test_a_gradient_that_is_not_finite_is_never_applied(encoded: list[Encoded]):
    """A finite loss may have such a gradient, and on the last step no further loss would show it."""
    model = tiny_lora()
    weight = next(weight for weight in model.parameters() if weight.requires_grad)
    weight.register_hook(lambda gradient: gradient * math.inf)
    before = lora_bytes(model)
    with pytest.raises(LossNotFinite, match="the norm of the gradient of step 1 of 6 is nan:"):
        train(model, encoded)
    assert lora_bytes(model) == before


def test_no_examples_are_an_error_and_no_epochs_are_not(encoded: list[Encoded]):
    """Without data there is nothing to learn; without epochs nothing changes."""
    with pytest.raises(DataEmpty):
        train(tiny_lora(), [])
    assert train(tiny_lora(), encoded, epochs=0) == TrainReport(0, 0.0, 0.0, 0.0)
