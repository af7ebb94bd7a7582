"""Where a model is held, and how, as settings say it; whether a machine can is asked in ``shared.ml.models``."""

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator

_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]+)?")


def _device(name: str) -> str:
    if not _DEVICE.fullmatch(name):
        raise ValueError("a device is auto, cpu, cuda or, with a number, cuda:1")
    return name


DeviceName: TypeAlias = Annotated[str, AfterValidator(_device)]

# How a frozen base model is held; nf4 has four bits a weight, and needs bitsandbytes.
DtypeName: TypeAlias = Literal["float32", "bfloat16", "nf4"]
