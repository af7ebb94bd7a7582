"""What services log: which run, round, agent and work a line is about, by the same keys everywhere, and never data."""

import ast
import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from functools import cache
from pathlib import Path

import pytest
import structlog
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.testing import capture_logs

from bench.federation import ManualClock, client_of, make_agent, sign
from bench.no_op import InProcess, NoOpTrainer
from services.client_agent.policy import Policy
from services.client_agent.state import StateFolder
from services.coordinator.context import Context
from shared.logs import LogFormat, log_to_stderr
from shared.protocol.terms import CohortTerms
from tests.support.federations import RUN, adapter, begin, client, coordinator, federation, terms_of
from tests.support.requests import announcing

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[1]
SECTION = (ROOT / "docs" / "monitoring.md").read_text().split("\n## Logs\n")[1].split("\n## ")[0]
KEYS = {key for row in re.findall(r"^\| (`.*?) \|", SECTION, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)}
OF_EVERY_LINE = {"event", "log_level"}
COHORT = CohortTerms(min_count=3, max_count=3, min_seconds=10, max_seconds=60)


@cache
def calls() -> list[tuple[str, ast.Call]]:
    """Return every call of a log in our code, with its place."""
    return [
        (f"{path.relative_to(ROOT)}:{node.lineno}", node)
        for path in (*(ROOT / "services").rglob("*.py"), *(ROOT / "shared").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log.")
    ]


@contextmanager
def logging(form: LogFormat, **always: str) -> Iterator[io.StringIO]:
    """Log as a service does while the block runs, and give what it writes."""
    before = structlog.get_config()
    try:
        with redirect_stderr(io.StringIO()) as written:
            log_to_stderr(form, **always)
            yield written
    finally:
        structlog.configure(**before)


def test_the_page_has_every_key_and_no_other() -> None:
    """What a line may have is looked up there, and a new key is thought about."""
    used = {keyword.arg for _, call in calls() for keyword in call.keywords if keyword.arg}
    assert used | {"agent", "who", "job"} == KEYS  # these also come from what many lines are about


def test_what_happened_is_a_name_and_no_text_that_differs() -> None:
    """Programs look for it; only the store's lines have the names of the audit log's actions."""
    unnamed = [
        place
        for place, call in calls()
        if not (isinstance(call.args[0], ast.Constant) and re.fullmatch(r"[a-z_]+\.[a-z_0-9]+", call.args[0].value))
    ]
    assert [place.partition(":")[0] for place in unnamed] == ["services/coordinator/store.py"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_crash_is_told_without_the_values_of_variables(form: LogFormat, tmp_path: Path) -> None:
    """They may be examples, or tensors of an update; the traceback says where it was."""
    file = tmp_path / "example.txt"
    file.write_text("a patient coughs")
    example = file.read_text()
    with logging(form) as stream:
        try:
            example.index("sneezes")
        except ValueError:
            structlog.get_logger().exception("work.crashed", job="prepare")
    assert "test_logs.py" in stream.getvalue()
    assert "ValueError" in stream.getvalue()
    assert example not in stream.getvalue()


def test_a_line_for_programs_is_one_json_document() -> None:
    """With the time in UTC, whose it is, and what the step that logs is about."""
    with logging("json", agent="ada") as stream, bound_contextvars(run_id=RUN, round=3):
        structlog.get_logger().warning("agent.failed", code="policy_refused", detail="one\ntwo")
    (line,) = stream.getvalue().splitlines()
    told: Mapping[str, object] = json.loads(line)
    assert str(told["timestamp"]).endswith("Z")
    assert {key: told[key] for key in told if key not in {"timestamp", "detail"}} == {
        "event": "agent.failed",
        "level": "warning",
        "agent": "ada",
        "run_id": RUN,
        "round": 3,
        "code": "policy_refused",
    }


@pytest.mark.parametrize(
    "aggregation", ["PlaintextAggregation", pytest.param("SecureAggregation", marks=pytest.mark.slow)]
)
async def test_every_line_of_a_run_says_which_run_round_and_agent(
    aggregation: str, tmp_path: Path, clock: ManualClock
) -> None:
    """Of the coordinator, the worker and the agents together, from its start to its end; and all keys are known."""
    async with federation(tmp_path, clock, agents=("ada", "bob", "cleo")) as everybody:
        with capture_logs([merge_contextvars]) as lines:
            await everybody.start(RUN, terms_of(aggregation=aggregation, cohort=COHORT))
            await everybody.finish(RUN)
    kinds = {line["event"].partition(".")[0] for line in lines}
    assert kinds == {"run", "round", "update", "work", "agent"} | ({"attempt"} & kinds)
    for line in lines:
        assert line.keys() <= KEYS | OF_EVERY_LINE
        assert line["run_id"] == RUN
        kind = line["event"].partition(".")[0]
        if kind in {"round", "update", "attempt"} or line["event"] in {"agent.trained", "agent.holds"}:
            assert line["round"] == 1
        if kind == "update":
            assert line["agent"] in {"ada", "bob", "cleo"}
        if kind == "work" and "who" not in line:
            assert line["job"].startswith(f"{RUN}-")


async def test_what_an_agent_refuses_is_logged_with_its_run_and_round(tmp_path: Path, clock: ManualClock) -> None:
    """Also where its policy says no before anything is done; and what comes after it is about something else."""
    async with federation(tmp_path, clock) as everybody:
        await everybody.start(RUN, terms_of())
        await everybody.worker.step(wait_seconds=0)
        sign(everybody.context, RUN)
        careful = make_agent(
            "ada",
            client_of(everybody.transports["ada"]),
            InProcess(NoOpTrainer()),
            StateFolder(tmp_path / "careful"),
            everybody.statuses["ada"],
            policy=Policy(),
            slm="slm",
            clock=clock,
            pause=_stop,
        )
        with capture_logs([merge_contextvars]) as lines, pytest.raises(_Enough):
            await careful.run()
    (failed,) = [line for line in lines if line["event"] == "agent.failed"]
    assert (failed["run_id"], failed["round"], failed["code"]) == (RUN, 1, "policy_refused")


class _Enough(Exception):
    """Ends a loop that goes on for ever."""


async def _stop(_: float) -> None:
    raise _Enough


@pytest.fixture
def context(tmp_path: Path, clock: ManualClock) -> Iterator[Context]:
    """A coordinator on an empty folder."""
    with coordinator(tmp_path, clock) as opened:
        yield opened


async def test_a_request_that_is_refused_is_logged_with_what_it_is_about(context: Context) -> None:
    """The run and the round in its path, and the agent that has sent it; not what it brought."""
    begin(context)
    blob = adapter(float("nan"))
    async with client(context, "ada") as http:
        with capture_logs() as lines:
            await http.put(f"/v1/runs/{RUN}/rounds/1/update", content=blob, headers=announcing(blob))
    (refused,) = [line for line in lines if line["event"] == "request.refused"]
    assert (refused["run_id"], refused["round"], refused["agent"]) == (RUN, 1, "ada")
    assert refused["code"] == "values_not_finite"


async def test_a_member_is_logged_as_the_agent_that_it_is(context: Context) -> None:
    """By whom it was revoked; and why, the audit log has."""
    with capture_logs() as lines:
        context.membership.revoke("ada", "it has left", actor="operator")
    (line,) = lines
    assert line == {"event": "member.revoked", "who": "operator", "agent": "ada", "log_level": "info"}


def test_what_is_not_committed_is_not_logged(context: Context) -> None:
    """A line about it would be a lie."""
    with capture_logs() as lines, pytest.raises(ZeroDivisionError), context.store.write() as tx:
        tx.audit.append("operator", "tokens.changed", "tokens", {})
        raise ZeroDivisionError
    assert lines == []
