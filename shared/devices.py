"""Names of devices, as settings give them; whether a machine has one is asked where torch is (``shared.ml.models``)."""

import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]+)?")


def _device(name: str) -> str:
    if not _DEVICE.fullmatch(name):
        raise ValueError("a device is auto, cpu, cuda or, with a number, cuda:1")
    return name


DeviceName: TypeAlias = Annotated[str, AfterValidator(_device)]
