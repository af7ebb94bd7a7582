"""A TOML file with every setting of a kind: those that were decided, and the others as comments with their defaults.

Made from the fields of the settings themselves, so that no file that `init` writes can lack one.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from textwrap import wrap
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from shared.configuration import validate

WIDTH = 100


def commented_toml(kind: type[BaseModel], values: Mapping[str, Any], *, head: str) -> str:
    """Return the file: ``head`` as its first comment, ``values`` by the names of ``kind``, the rest as comments.

    Raises:
        ConfigurationError: nobody could use such a file.
    """
    validate(kind, values, what="what was answered")
    return "\n".join([*_comment(head), *_settings(kind, values, ())]) + "\n"


def _settings(
    kind: type[BaseModel], values: Mapping[str, Any], table: tuple[str, ...], *, absent: bool = False
) -> Iterator[str]:
    """Yield the settings of one table, and then the tables inside it: TOML wants them in this order.

    Of a table that is ``absent``, those inside are too, and their heads are comments like all the rest.
    """
    inner = {name: model for name, field in kind.model_fields.items() if (model := _model(field)) is not None}
    begun = False
    for name, field in kind.model_fields.items():
        if name in inner:
            continue
        if field.description or not begun:
            yield ""
        begun = True
        yield from _comment(field.description or "")
        yield f"{name} = {_toml(values[name])}" if values.get(name) is not None else f"# {name} = {_usual(field)}"
    for name, model in inner.items():
        field = kind.model_fields[name]
        gone = absent or (values.get(name) is None and not field.is_required() and field.default is None)
        yield ""
        yield from _comment(field.description or _first_line(model))
        yield f"{'# ' * gone}[{'.'.join((*table, name))}]"
        yield from _settings(model, values.get(name) or {}, (*table, name), absent=gone)


def _comment(text: str) -> Iterator[str]:
    for paragraph in text.splitlines():
        yield from (f"# {line}" for line in wrap(paragraph, WIDTH)) if paragraph else ["#"]


def _usual(field: FieldInfo) -> str:
    """Return what stands in the comment: the default, or an example of what is not set."""
    default = field.get_default(call_default_factory=False)
    if default is not None and not field.is_required():
        return _toml(default)
    return f"{_toml(field.examples[0])}  # an example: it is not set" if field.examples else '""  # it is not set'


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").partition("\n")[0].replace("``", "")


def _model(field: FieldInfo) -> type[BaseModel] | None:
    """Return the table that a setting is, if it is one."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str() | PurePath():
            # JSON's strings are TOML's, but for one character that TOML wants escaped too.
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
        case list() | tuple():
            return f"[{', '.join(map(_toml, value))}]"
        case _:
            raise TypeError(f"settings hold no {type(value).__name__}")
