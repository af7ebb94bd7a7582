"""What each error means and what to do about it, as the docstring of its class says."""

import inspect

from shared import errors
from shared.errors.root import FedCoLLMError

ADVICE = "Do: "


def errors_with_codes() -> list[type[FedCoLLMError]]:
    """Return the classes of the tree that have a code of their own; its root's is for what nobody has thought of."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FedCoLLMError)]
    return [kind for kind in kinds if kind is not FedCoLLMError and "code" in vars(kind)]


def explained(kind: type[FedCoLLMError]) -> tuple[str, str]:
    """Return an error's meaning and what to do about it: the docstring's first paragraph, and the one with advice."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in (inspect.getdoc(kind) or "").split("\n\n")]
    advice = [paragraph.removeprefix(ADVICE) for paragraph in paragraphs if paragraph.startswith(ADVICE)]
    return paragraphs[0], "".join(f"{text[0].upper()}{text[1:]}" for text in advice)


def advice_on(code: str) -> str | None:
    """Return what to do about errors of a code; None for a code of another release."""
    return next((explained(kind)[1] for kind in errors_with_codes() if kind.code == code), None)
