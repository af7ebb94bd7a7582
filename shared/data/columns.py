"""What stands in a row's column, by its name or by a dotted path into the objects and lists that a column holds."""

import re
from collections.abc import Iterable, Mapping, Sequence

from shared.data.values import type_name
from shared.errors import DataColumnMissing
from shared.meant import meant

# What people call columns, as opposed to what they write into them: up to four words, no marks of a sentence. pandas
# writes no name at all for its index, and reads that as "Unnamed: 0".
_WORD = r"[\w.()/#%&+-]*[\w()/#%&+-]"
_NAME = re.compile(rf"\s*|Unnamed: \d+|\s*{_WORD}(?: +{_WORD}){{0,3}}\s*")
_LONGEST_NAME = 40


def look_up(row: Mapping[str, object], column: str, *, setting: str, where: str) -> object:
    """Return what ``column`` holds in a row.

    ``a.b`` is b in the object a; where a is a list, the list of each element's b. Names may have dots themselves: of
    those that ``column`` begins with, the longest is followed, and no other. ``setting`` and ``where`` are for the
    message.

    Raises:
        DataColumnMissing: there is no such column; said are those that there are, and which may have been meant.
    """
    return _inside(row, column, above="", setting=setting, where=where)


def listed(names: Sequence[str], above: str = "") -> str:
    """Return the names of the columns inside ``above`` for a message, or how many there are where any looks like data.

    None is told then: a table without a line of names has its first row there, and some of its cells look like names.
    """
    if not _are_names(names):
        return f"{len(names)} whose names look like data (in a table, does the first line name the columns?)"
    return ", ".join(repr(above + name) for name in names) or "none"


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
    there = listed(names, above)
    if above and not isinstance(value, Mapping):
        there = f"{above[:-1]!r} is {type_name(value)} and has no columns inside"
    whole = [above + name for name in names] if _are_names(names) else []
    hint = "name the right one"
    for asked in (path.partition(".")[0], path):
        hint = meant(above + asked, whole, otherwise=hint, part=lambda name: name.removeprefix(above))
    return f"{where} has no column {above + path!r}; there are: {there}. Correct `{setting}` in the settings: {hint}"


def _are_names(names: Iterable[str]) -> bool:
    return all(len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) for name in names)
