"""What ``make bench-private`` measures is real: sums that are checked, and requests as they are sent."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench import private_oracle
from bench.private_attempt import masked_attempt, unmask
from bench.private_bytes import request_bytes
from bench.private_oracle import exactness, weights_of
from services.coordinator.blobs import FileBlobs
from services.coordinator.unmasking import Unmasking
from shared.protocol.secagg.coding import SLOTS


@pytest.mark.parametrize("lost", [(), (0,)])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_secure_mean_is_the_mean(monkeypatch: pytest.MonkeyPatch, lost: tuple[int, ...], *, weighted: bool) -> None:
    """To a millionth of the clip and to the bound that is published, from a sum that is exact."""
    monkeypatch.setattr(private_oracle, "PARAMETERS", 500)
    found = exactness(4, weights=weights_of(4) if weighted else None, lost=lost)
    assert found.bit_exact
    assert found.error < 1e-6
    assert found.error < found.bound + 2**-24


def test_vectors_on_disk_are_unmasked(tmp_path: Path) -> None:
    """Seconds are of sums that are the survivors', and a sum that is not is noticed."""
    blobs, unmasking = FileBlobs(tmp_path), Unmasking(ThreadPoolExecutor)
    masked = masked_attempt(4, 100, 1, blobs)
    assert len(masked.blobs) == 3
    assert min(masked.agent) > 0
    assert unmask(masked, blobs, unmasking).seconds > 0
    masked.expected[7] += 1
    with pytest.raises(RuntimeError, match="not that of the survivors"):
        unmask(masked, blobs, unmasking)
    unmasking.close()


@pytest.mark.anyio
async def test_requests_are_counted_with_their_heads() -> None:
    """Besides its masked vector, an agent sends some kilobytes."""
    sent = await request_bytes(4, 1_000, 1)
    assert sent.masked == 4 * (1_000 + SLOTS)
    assert sent.masked + 5_000 < sent.bytes < sent.masked + 25_000
    assert sent.requests == 13
