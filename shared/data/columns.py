"""What stands in a row's column, by its name or by a dotted path into the objects and lists that a column holds."""

from collections.abc import Mapping

from shared.errors import DataColumnMissing
from shared.meant import meant

_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),  # before int, of which it is one
    (int, "a whole number"),
    (float, "a number"),
    (str, "a text"),
    (list, "a list"),
    (Mapping, "an object"),
    (type(None), "nothing"),
)


def look_up(row: Mapping[str, object], column: str, *, setting: str, where: str) -> object:
    """Return what ``column`` holds in a row.

    ``a.b`` is b in the object a; where a is a list, the list of each element's b. A name that itself has a dot comes
    first. ``setting`` and ``where`` are for the message.

    Raises:
        DataColumnMissing: there is no such column; said are those that there are, and which may have been meant.
    """
    return _inside(row, column, above="", setting=setting, where=where)


def type_name(value: object) -> str:
    """Return what a value is, in words."""
    return next((name for kind, name in _TYPES if isinstance(value, kind)), "something else")


def _inside(value: object, path: str, *, above: str, setting: str, where: str) -> object:
    if isinstance(value, list):
        return [_inside(one, path, above=above, setting=setting, where=where) for one in value]
    names = list(value) if isinstance(value, Mapping) else []
    if isinstance(value, Mapping):
        if path in names:
            return value[path]
        parts = path.split(".")
        for count in range(len(parts) - 1, 0, -1):
            name, rest = ".".join(parts[:count]), ".".join(parts[count:])
            if name in names:
                return _inside(value[name], rest, above=f"{above}{name}.", setting=setting, where=where)
    raise DataColumnMissing(_missing(value, path, names, above=above, setting=setting, where=where))


def _missing(value: object, path: str, names: list[str], *, above: str, setting: str, where: str) -> str:
    there = ", ".join(repr(above + name) for name in names) or "none"
    if above and not isinstance(value, Mapping):
        there = f"{above[:-1]!r} is {type_name(value)} and has no columns inside"
    whole = [above + name for name in names]
    hint = "name the right one"
    for asked in (path.partition(".")[0], path):
        hint = meant(above + asked, whole, otherwise=hint, part=lambda name: name.removeprefix(above))
    return f"{where} has no column {above + path!r}; there are: {there}. Correct `{setting}` in the settings: {hint}"
