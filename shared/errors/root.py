"""What all errors have in common: a stable code, and a message for people."""

from collections.abc import Iterator
from contextlib import contextmanager


class FedCoLLMError(Exception):
    """Base of every error that this project raises on purpose."""

    code: str = "internal"


def error_of(code: str, message: str, *, otherwise: type[FedCoLLMError]) -> FedCoLLMError:
    """Return the error that another process of ours has met, or ``otherwise`` where its code is not of this tree."""
    kinds = {kind.code: kind for kind in _tree(FedCoLLMError)}
    return kinds.get(code, otherwise)(message)


@contextmanager
def about(what: str) -> Iterator[None]:
    """Let errors of the block say what they are about: a setting or an option, by the name that its user knows."""
    try:
        yield
    except FedCoLLMError as error:
        error.args = (f"{what}: {error}",)
        raise


def _tree(kind: type[FedCoLLMError]) -> Iterator[type[FedCoLLMError]]:
    for below in kind.__subclasses__():
        if "code" in vars(below):
            yield below
        yield from _tree(below)
