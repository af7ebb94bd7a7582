"""An operator's terms, from a TOML file."""

from pathlib import Path

from shared.configuration import read_toml, validate
from shared.protocol.terms import RunTerms


def read_terms(path: Path) -> RunTerms:
    """Return the terms that a file says.

    Raises:
        ConfigurationError: there is no such file, or it says something that terms cannot be.
    """
    return validate(RunTerms, read_toml(RunTerms, path), what=str(path))
