"""How parties, runs and rounds are called; names become parts of paths and file names, so their form is fixed here."""

from typing import Annotated, TypeAlias

from pydantic import Field, StringConstraints

# An agent, an operator, a worker, a viewer, a federation.
PrincipalName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
RunId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]

# Rounds count by one, and by the seconds since a backup where one was put back: thirty years of them.
LAST_ROUND = 1_000_000_000
RoundNumber: TypeAlias = Annotated[int, Field(ge=0, le=LAST_ROUND)]

# The name of a licence, as a model's own card states it.
Licence: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+ -]{0,63}$")]

# One process of an agent, from its start to its end: 128 random bits as base64 for URLs.
InstanceId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{22}$")]

# What an agent says of a run that it declines: the run, and the code of its reason, or a word for it.
Declined: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}:[a-z_]{1,32}$")]
