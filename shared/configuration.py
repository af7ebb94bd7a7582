"""A process's settings: a TOML file, with the environment above it; what cannot be used is named as its user wrote it.

The same names everywhere: ``data.path`` in messages is ``path`` under ``[data]`` in the file and, for an agent,
``FEDCOLLM_AGENT_DATA__PATH`` in the environment. Relative paths in a file start at the file's folder.
"""

import argparse
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from shared.access import is_path, refusal
from shared.errors import ConfigurationError, about
from shared.meant import meant
from shared.protocol.terms import ModelMark

Model = TypeVar("Model", bound=BaseModel)
Settings = TypeVar("Settings", bound=BaseSettings)


def read_settings(
    kind: type[Settings], file: Path | None = None, *, given: Mapping[str, Any] | None = None
) -> Settings:
    """Return settings from ``file``, where one is given, and from the environment, which wins.

    What a command line was ``given`` wins over both.

    Raises:
        ConfigurationError: a setting is missing, unknown or cannot be used; all of them are named, and no value is.
    """
    _require_known_variables(kind)
    values = {} if file is None else read_toml(kind, file)
    try:
        values = merged(merged(values, EnvSettingsSource(kind)()), given or {})
        needed = [name for name, field in kind.model_fields.items() if field.is_required()]
        if file is None and not values and needed:
            raise ConfigurationError(
                f"there are no settings here, and {', '.join(needed)} are needed: name their file with --config, or go "
                f"to its folder; `init` writes one, and {kind.model_config['env_prefix']}* in the environment can take "
                "its place"
            )
        return validate(kind, values, what=_name(kind, file))
    except SettingsError as error:
        raise ConfigurationError(f"{_name(kind, file)}: {error}") from None


def config_argument(module: str, kind: type[BaseSettings]) -> Path | None:
    """Return the file that ``--config`` names on the command line of ``python -m module``, if it names one."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    prefix = kind.model_config["env_prefix"]
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"a TOML file; {prefix}* in the environment win")
    file: Path | None = parser.parse_args().config
    return file


def read_toml(kind: type[BaseModel], file: Path) -> dict[str, Any]:
    """Return what a TOML file says, with the relative paths among the settings of ``kind`` made absolute.

    Raises:
        ConfigurationError: there is no such file, or it is not TOML.
    """
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8-sig"))  # as some editors save it
    except OSError as error:
        raise ConfigurationError(f"the configuration file: {refusal(file, error)}; `init` writes one") from None
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError
        raise ConfigurationError(f"{file} is not TOML: {error}") from None
    return _absolute(kind, values, file.absolute().parent)


def validate(kind: type[Model], values: Mapping[str, Any], *, what: str) -> Model:
    """Return ``values`` as a ``kind``.

    Raises:
        ConfigurationError: they cannot be; ``what`` names where they came from.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = "\n".join(f"  {_line(kind, one['loc'], one['type'], one['msg'])}" for one in error.errors())
        raise ConfigurationError(f"{what} cannot be used:\n{lines}") from None


def _line(kind: type[BaseModel], location: tuple[str | int, ...], error: str, message: str) -> str:
    """One line about one setting; the value itself, which may be secret, is not in it."""
    name = ".".join(map(str, location)) or "as a whole"
    if error == "missing":
        variable = f" (or {_variable(kind, location)} in the environment)" if issubclass(kind, BaseSettings) else ""
        return f"{name} is missing: set it{variable}"
    if error == "extra_forbidden":
        known = sorted(_fields_at(kind, location[:-1]))
        return f"{name} is no setting: {meant(str(location[-1]), known, otherwise=_there_are(known))}"
    return f"{name}: {message.removeprefix('Value error, ')}"


def _require_known_variables(kind: type[BaseSettings]) -> None:
    prefix = str(kind.model_config["env_prefix"])
    known = [f"{prefix}{field.upper()}" for field in kind.model_fields]
    for variable in sorted(os.environ):
        if variable.startswith(prefix) and variable.partition("__")[0] not in known:
            hint = meant(variable, known, otherwise=_there_are(known), part=lambda name: name.removeprefix(prefix))
            raise ConfigurationError(f"{variable} in the environment is no setting: {hint}")


def _there_are(names: Sequence[str]) -> str:
    return f"there are {', '.join(names)}"


def _variable(kind: type[BaseSettings], location: tuple[str | int, ...]) -> str:
    return str(kind.model_config["env_prefix"]) + "__".join(str(part).upper() for part in location)


def _name(kind: type[BaseSettings], file: Path | None) -> str:
    variables = f"the environment ({kind.model_config['env_prefix']}*)"
    return variables if file is None else f"{file} (with {variables} above it)"


def _fields_at(kind: type[BaseModel], location: tuple[str | int, ...]) -> Mapping[str, FieldInfo]:
    for part in location:
        models = _models(kind.model_fields[str(part)].annotation) if str(part) in kind.model_fields else []
        if models:
            kind = models[0]
    return kind.model_fields


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of both; where both have one, ``above`` wins, and tables are merged in turn."""
    both = dict(below)
    for name, value in above.items():
        under = both.get(name)
        both[name] = merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return both


def _absolute(kind: type[BaseModel], values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make relative paths start at ``folder``, and ~ at home; names of models only where they begin at a folder."""
    absolute = dict(values)
    for name, field in kind.model_fields.items():
        value = values.get(name)
        if isinstance(value, str):
            started = os.path.expanduser(value)  # noqa: PTH111 - Path's own raises where there is no such user
            is_model = any(isinstance(mark, ModelMark) for mark in field.metadata)
            with about(name):
                if _is_path(field.annotation) or (is_model and value and is_path(started, folder)):
                    absolute[name] = str(folder / started)
        elif isinstance(value, Mapping):
            for model in _models(field.annotation):
                absolute[name] = _absolute(model, value, folder)
    return absolute


def _is_path(annotation: Any) -> bool:  # noqa: ANN401 - an annotation may be anything
    return annotation is Path or Path in get_args(annotation)


def _models(annotation: Any) -> list[type[BaseModel]]:  # noqa: ANN401
    parts = get_args(annotation) if get_origin(annotation) in {UnionType, Annotated} else (annotation,)
    return [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
