import torch

from shared.ml.seeding import derive_seed, seeded


def test_the_block_depends_on_the_seed_and_the_caller_on_nothing():
    """Inside, the numbers are the seed's, whatever was drawn before; outside, the stream goes on undisturbed."""
    torch.manual_seed(1)
    expected = [torch.rand(1).item(), torch.rand(1).item()]
    torch.manual_seed(1)
    outside = [torch.rand(1).item()]
    with seeded(9, device=torch.device("cpu")):
        inside = torch.rand(1).item()
    outside.append(torch.rand(1).item())
    with seeded(9, device=torch.device("cpu")):
        assert torch.rand(1).item() == inside
    assert outside == expected


def test_any_integer_is_a_seed():
    """Seeds are hashes of run, round and agent: they may be longer than torch takes, or negative."""
    for seed in (2**200 + 1, -1):
        with seeded(seed, device=torch.device("cpu")):
            torch.rand(1)


def test_derived_seeds_differ_by_every_part_and_by_order():
    """Two epochs, or two roles, never share a stream by accident."""
    parts = [(1,), (1, 2), (2, 1), (1, 2, 0), (12,)]
    assert len({derive_seed(*one) for one in parts}) == len(parts)
    assert all(0 <= derive_seed(seed) < 2**63 for seed in range(20))
