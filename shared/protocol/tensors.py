"""Adapters as named float32 arrays, and the layout that says beforehand which arrays they are.

Legend: an adapter is a mapping from PEFT's tensor name to a float32 array; its layout is the same mapping
with shapes in place of values. Nothing here knows how either is stored or sent (see ``codec``).
"""

import math
from collections.abc import Mapping
from typing import Annotated, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field, StringConstraints

from shared.errors import LayoutMismatch, ValuesNotFinite

Array: TypeAlias = npt.NDArray[np.float32]
Tensors: TypeAlias = Mapping[str, Array]
Layout: TypeAlias = Mapping[str, tuple[int, ...]]

# So many numbers at a time, as doubles too, stay in a processor's cache: a vector's worth of them would not.
SLICE = 1 << 16

# What an adapter may look like at most, wherever its layout comes from. Convolutions' factors have four dimensions.
MAX_NAME_CHARACTERS = 256
MAX_RANK = 4
MAX_SIDE = 1 << 31
MAX_TENSORS = 1 << 14
MAX_PARAMETERS = 1 << 36


def layout_of(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    """Return the layout that ``tensors`` has, by name."""
    return {name: tuple(tensors[name].shape) for name in sorted(tensors)}


def parameter_count(layout: Layout) -> int:
    """Return how many float32 numbers an adapter of this layout holds."""
    return sum(math.prod(shape) for shape in layout.values())  # not numpy's product, which wraps around


def _of_a_possible_size(layout: Layout) -> Layout:
    if (count := parameter_count(layout)) > MAX_PARAMETERS:
        raise ValueError(f"a layout of {count} numbers is that of no adapter")
    return layout


# A layout that somebody else has sent.
LayoutSent: TypeAlias = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=rf"^[A-Za-z0-9_.-]{{1,{MAX_NAME_CHARACTERS}}}$")],
        Annotated[tuple[Annotated[int, Field(ge=1, le=MAX_SIDE)], ...], Field(max_length=MAX_RANK)],
    ],
    Field(max_length=MAX_TENSORS),
    AfterValidator(_of_a_possible_size),
]


def require_layout(actual: Layout, expected: Layout) -> None:
    """Raise LayoutMismatch, naming the first difference, unless both layouts are the same.

    Raises:
        LayoutMismatch: a tensor is missing, unexpected, or has another shape.
    """
    if missing := sorted(expected.keys() - actual.keys()):
        raise LayoutMismatch(f"the adapter lacks {len(missing)} tensor(s) of the manifest, the first is {missing[0]!r}")
    if unexpected := sorted(actual.keys() - expected.keys()):
        raise LayoutMismatch(
            f"the adapter has {len(unexpected)} tensor(s) that the manifest does not, the first is {unexpected[0]!r}"
        )
    for name, shape in expected.items():
        if tuple(actual[name]) != tuple(shape):
            raise LayoutMismatch(
                f"tensor {name!r} has shape {list(actual[name])} and the manifest says {list(shape)}: "
                "train with the LoRA configuration of the run's manifest"
            )


def require_finite(values: Array, what: str) -> None:
    """Raise ValuesNotFinite if ``values`` holds NaN or an infinity; ``what`` names them in the message."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, SLICE):  # a mask of all would be large
        bad = int(np.count_nonzero(~np.isfinite(flat[start : start + SLICE])))
        if bad:
            raise ValuesNotFinite(
                f"{what} holds at least {bad} value(s) that are NaN or infinite: the training that made it diverged"
            )
