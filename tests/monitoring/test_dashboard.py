"""The dashboard for Grafana: it can be imported anywhere, and asks for nothing that nobody tells."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.test_alerts import metrics_in
from tests.support.prometheus import DASHBOARD, needs_prometheus, promtool, queries
from tests.test_documented_metrics import HEADINGS, documented

# What Prometheus adds to every series, and what the format has.
EVERYWHERE = {"job", "instance", "alertstate", "le"}
METRICS = {metric.name: metric for heading in HEADINGS for metric in documented(heading)}
BOARD: dict[str, Any] = json.loads(DASHBOARD.read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def documented_name(name: str) -> str:
    """Return the name under which the page has a part of a histogram or a summary."""
    return name if name in METRICS else re.sub(r"_(bucket|sum|count)$", "", name)


def test_it_is_one_dashboard_that_keeps_its_address():
    """Imported again it takes the place of the one before: links to it stay good."""
    assert (BOARD["uid"], BOARD["title"]) == ("fedcollm", "FedCoLLM")
    assert "id" not in BOARD
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_every_query_goes_to_the_data_source_that_its_reader_chooses():
    """No Grafana but the one that it was made with would know another."""
    (variable,) = BOARD["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == ("datasource", "datasource", "prometheus")
    sources = [part["datasource"] for panel in PANELS for part in (panel, *panel["targets"])]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]):
    """Also to whom the metrics' names say nothing; and where there is no value, a dash says so."""
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"] in {"none", "s", "bytes", "Bps", "reqps", "percentunit"}
    assert defaults["noValue"] == "-"
    assert all(target["legendFormat"] for target in panel["targets"])


def test_panels_are_beside_and_below_each_other():
    """None covers another, and none is wider than the page."""
    places = [panel["gridPos"] for panel in BOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_for_metrics_and_labels_that_there_are(panel: dict[str, Any]):
    """What it groups by, chooses by and writes into its legend is on each metric of the query."""
    for target in panel["targets"]:
        asked = {documented_name(name) for name in metrics_in(target["expr"])}
        assert asked <= set(METRICS)
        known = EVERYWHERE.union(*(METRICS[name].labels for name in asked))
        by = re.findall(r"\bby \(([\w, ]+)\)", target["expr"])
        chosen = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", target["expr"])
        shown = re.findall(r"{{(\w+)}}", target["legendFormat"])
        assert {*(label.strip() for each in by for label in each.split(",")), *chosen, *shown} <= known


def test_every_metric_of_the_federation_is_on_it_or_in_a_rule():
    """What nobody looks at need not be told: those few are for questions that somebody asks by hand."""
    rules = (DASHBOARD.parent / "alerts.yml").read_text()
    seen = {documented_name(name) for name in metrics_in(rules + " ".join(queries()))}
    assert {name for name in METRICS if name.startswith("fedcollm_")} - seen == {
        "fedcollm_blobs",
        "fedcollm_rounds",
        "fedcollm_audit_entries_total",
        "fedcollm_worker_cotuning_steps",
        "fedcollm_worker_questions_total",
        "fedcollm_agent_training_steps",
        "fedcollm_agent_rounds_total",
        "fedcollm_agent_sent_requests_total",
        "fedcollm_agent_received_bytes_total",
    }


@pytest.mark.slow
@needs_prometheus
def test_prometheus_understands_every_query(tmp_path: Path):
    """As promtool checks them, made rules of."""
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries())]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", tmp_path / "rules.yml")
