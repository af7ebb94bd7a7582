"""What the models' libraries raise, told as what is wrong with a model and what to do about it."""

from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import FedCoLLMError


@contextmanager
def told_as(kind: type[FedCoLLMError], message: str) -> Iterator[None]:
    """Call a library inside this; what it raises becomes a ``kind`` with this message and the library's first line.

    That may be anything: tokenizers raises bare exceptions, configurations an error of their own for each field, and
    what a damaged file leads to nobody has written down.

    Raises:
        FedCoLLMError: of that kind; our own errors go through.
    """
    try:
        yield
    except (FedCoLLMError, MemoryError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        first = f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
        raise kind(f"{message} ({first})") from error
