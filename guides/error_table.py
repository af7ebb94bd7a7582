"""The table of errors: each stable code with what it means and what to do, as the docstring of its class says."""

import inspect
import re

from guides.schemas import table
from services.coordinator.routes.problems import STATUS_BY_CODE
from shared import errors
from shared.errors import FedCoLLMError

ADVICE = "Do: "


def error_table() -> str:
    """Return the table in Markdown, in the order of the codes."""
    rows = []
    for kind in sorted(errors_with_codes(), key=lambda kind: kind.code):
        meaning, advice = explained(kind)
        rows.append([f'<code id="{kind.code}">{kind.code}</code>', _status(kind), _linked(meaning), _linked(advice)])
    return table(["code", "HTTP", "what it means", "what to do"], rows)


def errors_with_codes() -> list[type[FedCoLLMError]]:
    """Return the classes of the tree that have a code of their own; its root's is for what nobody has thought of."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FedCoLLMError)]
    return [kind for kind in kinds if kind is not FedCoLLMError and "code" in vars(kind)]


def explained(kind: type[FedCoLLMError]) -> tuple[str, str]:
    """Return an error's meaning and what to do about it: the docstring's first paragraph, and the one with advice."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in (inspect.getdoc(kind) or "").split("\n\n")]
    advice = [paragraph.removeprefix(ADVICE) for paragraph in paragraphs if paragraph.startswith(ADVICE)]
    return paragraphs[0], "".join(f"{text[0].upper()}{text[1:]}" for text in advice)


def _status(kind: type[FedCoLLMError]) -> str:
    return str(STATUS_BY_CODE.get(kind.code, ""))


def _linked(text: str) -> str:
    """Return text whose names of pages are links, and whose code is Markdown's."""
    text = text.replace("``", "`")
    return re.sub(r"docs/(([\w-]+\.md)(?:#[\w-]+)?)", r"[\2](\1)", text)
