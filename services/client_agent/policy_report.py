"""What an agent's policy says, for people: each rule with its value, what it means, and whether somebody has set it."""

from dataclasses import dataclass

from services.client_agent.policy import Policy
from services.client_agent.what_leaves import KINDS, Kind
from shared.cli.console import size

# Of a rule that has no value.
WITHOUT = {"base_models": "the one that is installed here"}
NO_LIMIT = "no limit"


@dataclass(frozen=True)
class Rule:
    """A rule in words; ``allows`` has the kinds of requests that leave by it."""

    name: str
    value: str
    means: str
    is_set: bool
    allows: tuple[Kind, ...]


def rules_of(policy: Policy) -> list[Rule]:
    """Return every rule that there is."""
    return [
        Rule(
            name=name,
            value=_in_words(name, getattr(policy, name)),
            means=field.description or "",
            is_set=name in policy.model_fields_set,
            allows=tuple(kind for kind in KINDS if kind.rule == f"policy.{name}"),
        )
        for name, field in Policy.model_fields.items()
    ]


def _in_words(name: str, value: object) -> str:
    match value:
        case None:
            return WITHOUT.get(name, NO_LIMIT)
        case bool():
            return "yes" if value else "no"
        case tuple():
            return ", ".join(map(str, value)) or "none"
        case int() if name.endswith("_bytes"):
            return f"{size(value)} ({value:,} bytes)"
        case int() | float():
            return f"{value:,}"
        case _:
            return str(value)
