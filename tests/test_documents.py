"""What README and docs/ say is compared with the code that they speak of."""

import re
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from services.client_agent.policy import Policy
from services.client_agent.what_leaves import KINDS, NOT_COVERED
from services.coordinator.routes import agents, audit, runs, work
from shared import errors
from shared.errors import FedCoLLMError
from shared.errors.advice import errors_with_codes
from shared.protocol.rounds import RoundState, RunState

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "SECURITY.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()


def section(title: str) -> str:
    return PROTOCOL.split(f"## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("states", [RunState, RoundState])
def test_the_protocol_names_every_state(states: type[RunState | RoundState]):
    """A state that is not in the picture does not exist."""
    words = set(re.findall(r"[a-z]+", section("States").split("- Each")[0]))

    assert {state.value for state in states} <= words


def test_the_protocol_lists_every_route():
    """The last word of each path stands in the section of its port."""
    text = {"Requests": section("Requests"), "Work": section("Work")}
    routers = (
        (runs.router, "Requests"),
        (agents.router, "Requests"),
        (audit.router, "Requests"),
        (work.router, "Work"),
    )
    paths = [(title, route.path) for router, title in routers for route in router.routes if isinstance(route, APIRoute)]
    words = [(title, re.findall(r"[a-z]+", re.sub(r"{.*?}", "", path))[-1]) for title, path in paths]

    assert len(paths) > 15
    assert [(title, word) for title, word in words if f"/{word}" not in text[title]] == []


def test_the_error_tree_is_drawn_as_it_is():
    """Every class and every code stands in the drawing at the top of shared/errors/."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FedCoLLMError)]
    drawing = errors.__doc__ or ""

    assert [kind.__name__ for kind in kinds if kind.__name__ not in drawing] == []
    assert [kind.code for kind in kinds if kind.code not in {"internal", *re.findall(r"[a-z_]+", drawing)}] == []


def test_the_table_of_what_leaves_is_the_agents():
    """An administrator reads the words that the ledger uses, in its order, and the rules."""
    text = (
        (ROOT / "docs" / "organisation.md")
        .read_text()
        .split("| kind | what it does | allowed by |\n| --- | --- | --- |\n")[1]
    )
    rows = [tuple(cell.strip(" `") for cell in row.strip("|").split("|")) for row in text.split("\n\n")[0].splitlines()]

    assert rows == [(kind.name, kind.words, kind.rule or "") for kind in KINDS]


def test_what_is_in_no_ledger_is_said_as_the_agents_page_says_it():
    """Word for word, and nothing is left out of either."""
    text = (ROOT / "docs" / "organisation.md").read_text().split("Not in the ledger, because")[1].split("\n\n")[1]
    said = [" ".join(line.split()).rstrip(";.") for line in text.removeprefix("- ").split("\n- ")]

    assert said == list(NOT_COVERED)


def test_what_an_organisation_can_limit_is_its_policy():
    """Each rule that the table speaks of is one."""
    text = (ROOT / "docs" / "organisation.md").read_text().split("| to be sure that | set |\n| --- | --- |\n")[1]
    rules = re.findall(r"`(\w+)", "\n".join(row.split("|")[2] for row in text.split("\n\n")[0].splitlines()))

    assert len(rules) > 5
    assert set(rules) <= set(Policy.model_fields)


def test_the_reasons_of_rounds_are_the_coordinators():
    """What a data scientist reads in a report, and looks for in docs/results.md."""
    text = (
        (ROOT / "docs" / "results.md").read_text().split("| state | reason | what it means |\n| --- | --- | --- |\n")[1]
    )
    sources = "".join(path.read_text() for path in ROOT.glob("services/coordinator/*.py"))
    said = re.sub(r"{.*?}", "…", re.sub(r'"\s*f?"', "", sources))
    codes = {kind.code for kind in errors_with_codes()}
    for row in text.split("\n\n")[0].splitlines():
        for reason in re.findall(r"`([^`]*…)", row.split("|")[2]):
            code, _, rest = reason.partition(": ")
            tail = rest == "…" and (code in codes or code.endswith(("…", " failed")))
            assert tail or reason.strip("… ") in said, reason


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_point_to_files_that_exist(name: str):
    """Links and paths in the documents lead somewhere."""
    text = (ROOT / name).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    paths = re.findall(r"(?<![\w/.])((?:services|shared|bench|docs|examples|tests)/[\w/.]*\w(?:/|\.\w+))", text)
    base = (ROOT / name).parent

    assert [link for link in links if not (base / link).exists()] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_paragraphs_are_120_columns_wide(name: str):
    """Tables and what is shown as it is may be wider."""
    text = re.sub(r"^```.*?^```", "", (ROOT / name).read_text(), flags=re.MULTILINE | re.DOTALL)
    prose = [line for line in text.splitlines() if not line.startswith(("|", "    "))]

    assert [line for line in prose if len(line) > 120] == []


def test_adrs_are_numbered_without_a_gap_and_cited_ones_exist():
    """docs/adr/0001 to the newest; what the code cites is there."""
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "adr").glob("*.md"))
    sources = [*ROOT.glob("services/**/*.py"), *ROOT.glob("shared/**/*.py"), *ROOT.glob("docs/*.md")]
    cited = {int(found) for path in sources for found in re.findall(r"docs/adr/(\d{4})", path.read_text())}

    assert numbers == list(range(1, len(numbers) + 1))
    assert cited <= set(numbers)
