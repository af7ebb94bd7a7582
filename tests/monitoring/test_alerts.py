"""The rules by which somebody is told: what they ask for, what they say, and that each fires on what it is for."""

import re
from pathlib import Path

import pytest
import yaml

from tests.support.prometheus import FOLDER, needs_prometheus, promtool
from tests.test_documented_metrics import PAGE, names

RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
UNIT_TESTS = Path(__file__).parent / "alerts.test.yml"


def metrics_in(expression: str) -> set[str]:
    """Return the names of our metrics in a query."""
    return set(re.findall(r"\bfedcollm_\w+|\bprocess_\w+", expression))


def test_rules_ask_for_metrics_that_there_are():
    """A rule about a metric that nobody tells would never fire."""
    asked = set().union(*(metrics_in(rule["expr"]) for rule in RULES))
    assert len(asked) > 10
    assert asked <= names()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_rule_says_what_is_wrong_and_what_to_do(rule: dict[str, dict[str, str]]):
    """Whoever is woken by it reads no code."""
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "runbook"}
    assert rule["annotations"]["runbook"].endswith(".")


def test_the_page_names_every_rule():
    """With how bad it is."""
    table = PAGE.split("| alert | severity | it fires when |\n| --- | --- | --- |\n")[1].split("\n\n")[0]
    shown = [[cell.strip(" `") for cell in row.strip("|").split("|")][:2] for row in table.splitlines()]
    assert shown == [[rule["alert"], rule["labels"]["severity"]] for rule in RULES]


def test_every_rule_is_seen_to_fire():
    """In alerts.test.yml, which promtool runs below."""
    fired = set(re.findall(r'alertname="(\w+)"', UNIT_TESTS.read_text()))
    assert fired == {rule["alert"] for rule in RULES}


@pytest.mark.slow
@needs_prometheus
def test_prometheus_understands_rules_and_configuration():
    """As promtool checks both."""
    assert f"{len(RULES)} rules found" in promtool("check", "rules", FOLDER / "alerts.yml")
    promtool("check", "config", "--syntax-only", FOLDER / "prometheus.yml")


@pytest.mark.slow
@needs_prometheus
def test_rules_fire_when_they_should_and_not_before():
    """By series that are made up, minute by minute."""
    assert "SUCCESS" in promtool("test", "rules", UNIT_TESTS)
