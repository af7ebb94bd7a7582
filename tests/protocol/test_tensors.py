import pytest
from pydantic import TypeAdapter, ValidationError

from shared.protocol.tensors import MAX_TENSORS, LayoutSent, parameter_count

SENT: TypeAdapter[LayoutSent] = TypeAdapter(LayoutSent)

IMPOSSIBLE: dict[str, object] = {
    "a name that is a path": {"../../weight": [2, 3]},
    "a name that is nothing": {"": [2, 3]},
    "a name of a page": {"x" * 257: [2, 3]},
    "a name with a line break": {"weight\n": [2, 3]},
    "a side of nothing": {"weight": [0, 3]},
    "a negative side": {"weight": [-2, 3]},
    "a side beyond all memory": {"weight": [1 << 40]},
    "a side that is no whole number": {"weight": [2.5]},
    "five sides": {"weight": [1, 1, 1, 1, 1]},
    "more numbers than an adapter has": {"weight": [1 << 30, 1 << 30]},
    "more numbers than an adapter has, in many tensors": {f"weight{n}": [1 << 30] for n in range(65)},
    "more tensors than an adapter has": {f"weight{n}": [1] for n in range(MAX_TENSORS + 1)},
}


@pytest.mark.parametrize("layout", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_layout_of_no_adapter_is_refused(layout: object):
    """Whoever sends it, nobody begins to make room for it."""
    with pytest.raises(ValidationError):
        SENT.validate_python(layout)


def test_a_layout_of_an_adapter_is_taken():
    """Names as PEFT writes them, and the two to four sides that its factors have."""
    layout = {"base_model.model.h.0.c_attn.lora_A.weight": [8, 768], "conv-1.lora_B.weight": [64, 8, 1, 1]}
    assert parameter_count(SENT.validate_python(layout)) == 8 * 768 + 64 * 8


def test_a_count_does_not_wrap_around():
    """Sides whose product is beyond 64 bits are many numbers, and not none."""
    assert parameter_count({"weight": (1 << 32, 1 << 32)}) == 1 << 64
