"""Which release of this software runs, and how it says so to the other side (``User-Agent``)."""

import re
from importlib.metadata import version

_PRODUCT = re.compile(r"^fedcollm/([0-9A-Za-z.+-]{1,32})$")


def release() -> str:
    """Return the version of the release that runs."""
    return version("fedcollm")


def product() -> str:
    """Return what this release calls itself in its requests."""
    return f"fedcollm/{release()}"


def release_told(product_told: str) -> str | None:
    """Return the version that a request tells of its sender's release, if it tells one."""
    found = _PRODUCT.match(product_told)
    return found and found[1]
