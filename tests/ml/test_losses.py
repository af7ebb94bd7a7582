import pytest
import torch

from shared.errors import TokenizerMismatch
from shared.ml.encoding import Batch, Encoded, collate
from shared.ml.losses import answer_labels, answer_log_probs, cross_entropy, distillation, where_peer_is_better
from tests.support.tiny_models import FAMILIES, tiny_base, tiny_lora, tiny_tokenizer

CPU = torch.device("cpu")
VOCAB = len(tiny_tokenizer())


def random_log_probs(seed: int) -> torch.Tensor:
    """Log-probabilities of some model, which want a gradient."""
    logits_NV = torch.randn(5, 11, generator=torch.Generator().manual_seed(seed)).mul(2)
    return logits_NV.log_softmax(-1).requires_grad_()


@pytest.mark.parametrize("family", ["gpt2", "opt", *FAMILIES])
def test_log_probabilities_and_labels_are_the_models_own_at_the_answers(family: str, encoded: list[Encoded]):
    """Against a naive loop without padding: position i - 1 predicts token i, for answer tokens only; through LoRA."""
    model = tiny_lora(family, spread=0.3)
    batch = collate(encoded[:4], CPU)
    rows, labels = [], []
    with torch.no_grad():
        for one in encoded[:4]:
            logits_TV = model(input_ids=torch.tensor([one.token_ids])).logits[0]
            for i in range(one.answer_start, len(one.token_ids)):
                rows.append(logits_TV[i - 1, :VOCAB].log_softmax(-1))
                labels.append(one.token_ids[i])
        log_NV = answer_log_probs(model, batch, vocab_size=VOCAB)
    assert answer_labels(batch).tolist() == labels
    torch.testing.assert_close(log_NV, torch.stack(rows), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "opt", *FAMILIES])
def test_the_padding_id_does_not_matter(family: str, encoded: list[Encoded]):
    """Any id in the padded places gives the same bytes: without a mask no model looks there."""
    model, batch = tiny_lora(family, spread=0.3), collate(encoded[:4], CPU)
    lengths_B = torch.tensor([len(one.token_ids) for one in encoded[:4]])
    padded_BT = torch.arange(batch.token_ids_BT.shape[1]) >= lengths_B[:, None]
    assert padded_BT.any()
    other = Batch(batch.token_ids_BT.masked_fill(padded_BT, 77), batch.answer_mask_BT)
    with torch.no_grad():
        assert torch.equal(
            answer_log_probs(model, batch, vocab_size=VOCAB), answer_log_probs(model, other, vocab_size=VOCAB)
        )


@pytest.mark.parametrize("family", ["gpt2", "opt", "gemma2"])
def test_the_head_runs_at_the_needed_positions_only(family: str, encoded: list[Encoded]):
    """What the head makes has as many rows as there are answer tokens; afterwards the model is as it was."""
    model, batch = tiny_lora(family), collate(encoded, CPU)
    made: list[tuple[int, ...]] = []
    head = model.get_base_model().get_output_embeddings()
    hook = head.register_forward_hook(lambda _, __, output: made.append(tuple(output.shape)))
    answer_log_probs(model, batch, vocab_size=VOCAB)
    hook.remove()
    assert made == [(1, len(answer_labels(batch)), 264)]
    assert model(input_ids=batch.token_ids_BT).logits.shape == (*batch.token_ids_BT.shape, 264)


def test_a_failing_forward_leaves_no_hook_behind(encoded: list[Encoded]):
    """After an error (memory, say) the model still gives all its logits."""
    model, batch = tiny_lora(), collate(encoded, CPU)
    broken = Batch(batch.token_ids_BT + 10_000, batch.answer_mask_BT)
    with pytest.raises(IndexError):
        answer_log_probs(model, broken, vocab_size=VOCAB)
    assert model(input_ids=batch.token_ids_BT).logits.shape == (*batch.token_ids_BT.shape, 264)


def test_log_probabilities_are_float32_over_the_tokenizer_alone(encoded: list[Encoded]):
    """A bf16 model with a padded head: its other entries take no part in the softmax; a plain base model will do."""
    log_NV = answer_log_probs(tiny_base().to(torch.bfloat16), collate(encoded, CPU), vocab_size=VOCAB)
    assert log_NV.dtype == torch.float32
    assert log_NV.shape[1] == VOCAB < 264
    torch.testing.assert_close(log_NV.exp().sum(-1), torch.ones(len(log_NV)))


def test_a_head_narrower_than_the_tokenizer_is_refused(encoded: list[Encoded]):
    """The tokenizer has entries that the model cannot predict: it is not the model's."""
    with pytest.raises(TokenizerMismatch, match="264 outputs and the tokenizer 265"):
        answer_log_probs(tiny_lora(), collate(encoded, CPU), vocab_size=265)


def test_cross_entropy_is_a_mean_per_answer_token():
    """Eq. 4 against a naive loop; a long answer weighs by its tokens."""
    log_NV, labels = random_log_probs(0), [3, 1, 0, 10, 3]
    naive = -sum(row[label] for row, label in zip(log_NV, labels, strict=True)) / 5
    torch.testing.assert_close(cross_entropy(log_NV, torch.tensor(labels)), naive)


def naive_kl(p_NV: torch.Tensor, q_NV: torch.Tensor) -> float:
    """KL(p || q) by the formula, in double precision, a mean over rows."""
    p, q = p_NV.detach().double().exp(), q_NV.detach().double().exp()
    return sum(
        float(a * (a / b).log()) for ra, rb in zip(p, q, strict=True) for a, b in zip(ra, rb, strict=True)
    ) / len(p)


def test_both_kl_directions_are_those_of_the_formula():
    """Forward is KL(peer || own), reverse is KL(own || peer), and they differ (Eq. 5)."""
    own_NV, peer_NV = random_log_probs(1), random_log_probs(2)
    forward, reverse = naive_kl(peer_NV, own_NV), naive_kl(own_NV, peer_NV)
    assert float(distillation(own_NV, peer_NV, "forward").detach()) == pytest.approx(forward, rel=1e-5)
    assert float(distillation(own_NV, peer_NV, "reverse").detach()) == pytest.approx(reverse, rel=1e-5)
    assert abs(forward - reverse) > 0.01


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_divergence_is_a_mean_per_answer_token(direction: str):
    """The same tokens twice, or more entries that are impossible, leave it as it is: lambda keeps its meaning."""
    own_NV, peer_NV = random_log_probs(1), random_log_probs(2)
    once = distillation(own_NV, peer_NV, direction)
    torch.testing.assert_close(distillation(own_NV.repeat(2, 1), peer_NV.repeat(2, 1), direction), once)
    padding_NV = torch.full((5, 100), -100.0)
    wide = [torch.cat([one_NV, padding_NV], 1).log_softmax(-1) for one_NV in (own_NV, peer_NV)]
    torch.testing.assert_close(distillation(*wide, direction), once)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_divergence_moves_the_student_and_not_the_teacher(direction: str):
    """The gradient is non-zero for the own and none for the peer's; equal models have nothing to learn."""
    own_NV, peer_NV = random_log_probs(1), random_log_probs(2)
    distillation(own_NV, peer_NV, direction).backward()
    assert own_NV.grad is not None
    assert own_NV.grad.abs().max() > 1e-3
    assert peer_NV.grad is None
    assert float(distillation(own_NV, own_NV, direction).detach()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_tokens_where_nothing_is_learnt_count_as_no_divergence(direction: str):
    """The mean is over all answer tokens still, so that lambda means the same; none at all are 0."""
    own_NV, peer_NV = random_log_probs(1), random_log_probs(2)
    where_N = torch.tensor([True, False, True, False, False])
    found = distillation(own_NV, peer_NV, direction, where_N=where_N)
    torch.testing.assert_close(found, distillation(own_NV[where_N], peer_NV[where_N], direction) * 2 / 5)
    assert float(distillation(own_NV, peer_NV, direction, where_N=torch.zeros(5, dtype=torch.bool)).detach()) == 0


def test_a_peer_is_better_where_it_finds_the_right_token_likelier():
    """Token by token; where both are equal there is nothing to learn."""
    own_NV = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]).log()
    peer_NV = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.1, 0.9]]).log()
    assert where_peer_is_better(own_NV, peer_NV, torch.tensor([0, 0, 0])).tolist() == [True, False, False]
    assert where_peer_is_better(own_NV, peer_NV, torch.tensor([1, 1, 1])).tolist() == [False, False, True]


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_kl_term_reaches_the_students_lora_and_not_the_teachers(direction: str, encoded: list[Encoded]):
    """Through whole models: every B matrix of the student has a gradient, and no weight of the teacher has one."""
    student, teacher, batch = (
        tiny_lora(seed=1, spread=0.3),
        tiny_lora(seed=2, hidden=48, spread=0.3),
        collate(encoded, CPU),
    )
    distillation(
        answer_log_probs(student, batch, vocab_size=VOCAB),
        answer_log_probs(teacher, batch, vocab_size=VOCAB),
        direction,
    ).backward()
    gradients = [weight.grad for name, weight in student.named_parameters() if "lora_" in name]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)
    assert all(weight.grad is None for weight in teacher.parameters())
