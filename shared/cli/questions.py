"""Questions that `init` asks: each has an option that answers it, and an answer that cannot be used is asked again."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError

from shared.access import require_model, require_readable
from shared.cli.console import Output
from shared.errors import ConfigurationError, FedCoLLMError, about

Answer = TypeVar("Answer")


class Questions:
    """Asks at a terminal; where nobody is to be asked, defaults are taken."""

    def __init__(self, output: Output, *, asking: bool) -> None:
        self._output = output
        self.asking = asking

    def ask(
        self,
        question: str,
        *,
        given: str | None,
        option: str,
        check: Callable[[str], Answer],
        default: str | None = None,
    ) -> Answer:
        """Return the checked answer: what the option gave, or what is answered, or the default.

        Raises:
            ConfigurationError: there is no answer, and nobody is to be asked.
            FedCoLLMError: what the option gave cannot be used.
            KeyboardInterrupt: whoever was asked has had enough.
        """
        if given is None and self.asking:
            return self.prompt(question, check=check, default=default)
        answer = default if given is None else given
        if answer is None:
            raise ConfigurationError(f"{question}: nobody was asked, so say it with {option}")
        with about(option):
            return check(answer)

    def prompt(
        self, question: str, *, check: Callable[[str], Answer], default: str | None = None, hidden: bool = False
    ) -> Answer:
        """Ask until the answer can be used, and return it checked."""
        while True:
            try:
                return check(self._prompt(question, default, hidden=hidden))
            except FedCoLLMError as error:
                self.note(str(error))

    def note(self, text: str) -> None:
        """Tell what is to be known between two questions."""
        self._output.note(text)

    def _prompt(self, question: str, default: str | None, *, hidden: bool) -> str:
        try:
            answer = typer.prompt(question, default=default, hide_input=hidden, err=True, show_default=bool(default))
        except typer.Abort:
            self._output.when_interrupted = "nothing was written"
            self.note("")  # Ctrl-C does not end the question's line
            raise KeyboardInterrupt from None
        return str(answer).strip()


def readable(answer: str) -> Path:
    """Check that an answer is a file or folder that can be read."""
    path = Path(answer).expanduser()
    require_readable(path)
    return path


def model(answer: str) -> str:
    """Check that an answer is a base model's folder, or may be a hub id."""
    name = os.path.expanduser(answer)  # noqa: PTH111 - Path's own raises where there is no such user
    require_model(name)
    return name


def typed(kind: Any) -> Callable[[str], str]:  # noqa: ANN401 - a type
    """Return a check that an answer is what the type of a setting wants."""

    def check(answer: str) -> str:
        try:
            return str(TypeAdapter(kind).validate_python(answer))
        except ValidationError as error:
            raise ConfigurationError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None

    return check
