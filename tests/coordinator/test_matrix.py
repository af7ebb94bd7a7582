"""Everybody, on every route, with objects that are theirs, another's and nobody's: which answer they get."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import BaseModel

from bench.federation import ManualClock, admit, key_of
from services.coordinator.app import create_app, create_work_app
from services.coordinator.context import Context
from services.coordinator.principals import Role
from shared.protocol.attempts import DealtShares, ReleasedShares, SignedSurvivors
from shared.protocol.digests import digest_of
from shared.protocol.manifest import MANIFEST, ManifestSignature
from shared.protocol.membership import EnrolmentRequest, RevocationRequest, SignedCertificate
from shared.protocol.messages import CancelRequest
from shared.protocol.published import PromotionRequest
from shared.protocol.questions import QuestionRequest
from shared.protocol.resumption import SIGNED_BESIDES, append_fields, offset_fields
from shared.protocol.secagg.attempt import Advert
from shared.protocol.secagg.member import announce
from shared.protocol.secagg.sealing import AttemptSecrets
from shared.protocol.terms import CohortTerms
from shared.protocol.work import FailureRequest, Heartbeat, Lease, LeaseRequest, QuestionAnswered, ResultRequest
from tests.coordinator.test_principals import INTERNAL, PUBLIC
from tests.support.federations import (
    LLM_LAYOUT,
    ROLES,
    RUN,
    adapter,
    begin,
    client,
    coordinator,
    lease,
    play_round,
    result_of,
    submit,
    terms_of,
    theta_of,
    work,
)
from tests.support.members import certificate, enrolment, invitation
from tests.support.requests import announcing

pytestmark = pytest.mark.anyio

# Ada has sent her update of the open round, Bob has not; Eve was a member and is revoked; then whoever says nothing.
WHO = ("operator", "viewer", "worker", "ada", "bob", "eve", None)


TERMS = terms_of(rounds=3)
SHARING = terms_of(share_aggregate=True, cohort=CohortTerms(min_count=1, max_count=1, min_seconds=10, max_seconds=60))
SECRET = terms_of(
    aggregation="SecureAggregation", cohort=CohortTerms(min_count=3, max_count=3, min_seconds=10, max_seconds=60)
)
NEW_BLOB = adapter(77.0, LLM_LAYOUT)
UPDATES = "/v1/runs/{run_id}/rounds/{number}/update"
SIGNATURE = "/v1/runs/{run_id}/manifest/signature"
CARD = "/v1/runs/{run_id}/rounds/{number}/card"
AGGREGATE = "/v1/runs/{run_id}/rounds/{number}/aggregate"
READY = "/v1/runs/{run_id}/rounds/{number}/ready"
ATTEMPT = "/v1/runs/{run_id}/rounds/{number}/attempts/{attempt}"


class Row(NamedTuple):
    """A request with an object, and its status for each of ``WHO``, in that order."""

    object: str
    method: str
    route: str
    statuses: str


MATRIX = [
    #                                                                    operator vi. wo. ada bob eve nobody
    Row("", "GET", "/healthz", "                                              200 200 200 200 200 200 200"),
    Row("", "GET", "/readyz", "                                               200 200 200 200 200 200 200"),
    Row("", "GET", "/metrics", "                                              200 200 403 403 403 403 401"),
    Row("", "GET", "/", "                                                     307 307 307 307 307 307 307"),
    Row("", "GET", "/dashboard/", "                                           200 200 200 200 200 200 200"),
    Row("app.js", "GET", "/dashboard/{name}", "                               200 200 200 200 200 200 200"),
    Row("no file", "GET", "/dashboard/{name}", "                              404 404 404 404 404 404 404"),
    Row("runs.js", "GET", "/dashboard/pages/{name}", "                        200 200 200 200 200 200 200"),
    Row("no page", "GET", "/dashboard/pages/{name}", "                        404 404 404 404 404 404 404"),
    Row("", "GET", "/v1/federation", "                                        200 200 403 403 403 403 401"),
    Row("", "GET", "/v1/presets", "                                           200 200 403 403 403 403 401"),
    Row("", "GET", "/v1/runs", "                                              200 200 403 403 403 403 401"),
    Row("new run", "PUT", "/v1/runs/{run_id}", "                              200 403 403 403 403 403 401"),
    Row("run", "PUT", "/v1/runs/{run_id}", "                                  200 403 403 403 403 403 401"),
    Row("run, other terms", "PUT", "/v1/runs/{run_id}", "                     409 403 403 403 403 403 401"),
    Row("run", "GET", "/v1/runs/{run_id}", "                                  200 200 403 403 403 403 401"),
    Row("no run", "GET", "/v1/runs/{run_id}", "                               404 404 403 403 403 403 401"),
    Row("run", "POST", "/v1/runs/{run_id}/start", "                           200 403 403 403 403 403 401"),
    Row("no run", "POST", "/v1/runs/{run_id}/start", "                        404 403 403 403 403 403 401"),
    Row("run", "PUT", SIGNATURE, "                                            200 403 403 403 403 403 401"),
    Row("run, by ada", "PUT", SIGNATURE, "                                    422 403 403 403 403 403 401"),
    Row("no run", "PUT", SIGNATURE, "                                         404 403 403 403 403 403 401"),
    Row("run", "POST", "/v1/runs/{run_id}/pause", "                           200 403 403 403 403 403 401"),
    Row("no run", "POST", "/v1/runs/{run_id}/pause", "                        404 403 403 403 403 403 401"),
    Row("run", "POST", "/v1/runs/{run_id}/cancel", "                          200 403 403 403 403 403 401"),
    Row("no run", "POST", "/v1/runs/{run_id}/cancel", "                       404 403 403 403 403 403 401"),
    Row("run", "GET", "/v1/runs/{run_id}/rounds", "                           200 200 403 403 403 403 401"),
    Row("no run", "GET", "/v1/runs/{run_id}/rounds", "                        404 404 403 403 403 403 401"),
    Row("run", "GET", "/v1/runs/{run_id}/events", "                           200 200 403 403 403 403 401"),
    Row("no run", "GET", "/v1/runs/{run_id}/events", "                        404 404 403 403 403 403 401"),
    Row("run", "GET", "/v1/runs/{run_id}/artefacts", "                        200 200 403 403 403 403 401"),
    Row("no run", "GET", "/v1/runs/{run_id}/artefacts", "                     404 404 403 403 403 403 401"),
    Row("SLM adapter", "GET", "/v1/runs/{run_id}/artefacts/{name}", "         200 403 403 403 403 403 401"),
    Row("LLM adapter", "GET", "/v1/runs/{run_id}/artefacts/{name}", "         200 403 403 403 403 403 401"),
    Row("no artefact", "GET", "/v1/runs/{run_id}/artefacts/{name}", "         404 403 403 403 403 403 401"),
    Row("no run's artefact", "GET", "/v1/runs/{run_id}/artefacts/{name}", "   404 403 403 403 403 403 401"),
    Row("run", "GET", "/v1/runs/{run_id}/manifest", "                         200 200 403 200 200 403 401"),
    Row("no run", "GET", "/v1/runs/{run_id}/manifest", "                      404 404 403 404 404 403 401"),
    Row("", "GET", "/v1/adapters", "                                          200 200 403 403 403 403 401"),
    Row("past round", "GET", CARD, "                                          200 200 403 200 200 403 401"),
    Row("run", "GET", CARD, "                                                 404 404 403 404 404 403 401"),
    Row("no round", "GET", CARD, "                                            404 404 403 404 404 403 401"),
    Row("no run's round", "GET", CARD, "                                      404 404 403 404 404 403 401"),
    #                                                                    ada has a part in it, bob has not
    Row("shared round", "GET", AGGREGATE, "                                   403 403 403 200 404 403 401"),
    Row("past round", "GET", AGGREGATE, "                                     403 403 403 404 404 403 401"),
    Row("run", "GET", AGGREGATE, "                                            403 403 403 404 404 403 401"),
    Row("no run's round", "GET", AGGREGATE, "                                 403 403 403 404 404 403 401"),
    Row("published adapter", "GET", "/v1/adapters/{digest}", "                200 200 403 200 200 403 401"),
    Row("ada's update", "GET", "/v1/adapters/{digest}", "                     404 404 403 404 404 403 401"),
    Row("bob's past update", "GET", "/v1/adapters/{digest}", "                404 404 403 404 404 403 401"),
    Row("average before co-tuning", "GET", "/v1/adapters/{digest}", "         404 404 403 404 404 403 401"),
    Row("LLM's adapter", "GET", "/v1/adapters/{digest}", "                    404 404 403 404 404 403 401"),
    Row("no blob", "GET", "/v1/adapters/{digest}", "                          404 404 403 404 404 403 401"),
    Row("", "GET", "/v1/promotion", "                                         200 200 403 403 403 403 401"),
    Row("past round", "PUT", "/v1/promotion", "                               200 403 403 403 403 403 401"),
    Row("no round", "PUT", "/v1/promotion", "                                 404 403 403 403 403 403 401"),
    Row("", "DELETE", "/v1/promotion", "                                      200 403 403 403 403 403 401"),
    Row("run", "POST", "/v1/questions", "                                     200 403 403 403 403 403 401"),
    Row("no run", "POST", "/v1/questions", "                                  404 403 403 403 403 403 401"),
    Row("question", "GET", "/v1/questions/{question_id}", "                   200 403 403 403 403 403 401"),
    Row("no question", "GET", "/v1/questions/{question_id}", "                404 403 403 403 403 403 401"),
    Row("", "GET", "/v1/wanted", "                                            403 403 403 200 200 403 401"),
    Row("", "POST", "/v1/leave", "                                            403 403 403 200 200 403 401"),
    Row("ada's update", "PUT", UPDATES, "                                     403 403 403 200 200 403 401"),
    Row("another update than ada's", "PUT", UPDATES, "                        403 403 403 409 200 403 401"),
    Row("past round", "PUT", UPDATES, "                                       403 403 403 409 409 403 401"),
    Row("no round", "PUT", UPDATES, "                                         403 403 403 404 404 403 401"),
    Row("no run's round", "PUT", UPDATES, "                                   403 403 403 404 404 403 401"),
    #                                                                    of what goes on; nothing is here of any
    Row("ada's update", "PATCH", UPDATES, "                                   403 403 403 200 409 403 401"),
    Row("no run's round", "PATCH", UPDATES, "                                 403 403 403 404 404 403 401"),
    Row("ada's update", "HEAD", UPDATES, "                                    403 403 403 204 204 403 401"),
    Row("no run's round", "HEAD", UPDATES, "                                  403 403 403 204 204 403 401"),
    Row("", "GET", "/v1/agents", "                                            200 403 403 403 403 403 401"),
    Row("new agent", "PUT", "/v1/agents/{name}/invitation", "                 200 403 403 403 403 403 401"),
    Row("eve", "PUT", "/v1/agents/{name}/invitation", "                       200 403 403 403 403 403 401"),
    Row("bob", "PUT", "/v1/agents/{name}/invitation", "                       409 403 403 403 403 403 401"),
    Row("bob", "PUT", "/v1/agents/{name}/certificate", "                      200 403 403 403 403 403 401"),
    Row("bob, ada's", "PUT", "/v1/agents/{name}/certificate", "               409 403 403 403 403 403 401"),
    Row("bob, by ada", "PUT", "/v1/agents/{name}/certificate", "              422 403 403 403 403 403 401"),
    Row("new agent", "PUT", "/v1/agents/{name}/certificate", "                404 403 403 403 403 403 401"),
    Row("bob", "POST", "/v1/agents/{name}/revoke", "                          200 403 403 403 403 403 401"),
    Row("new agent", "POST", "/v1/agents/{name}/revoke", "                    404 403 403 403 403 403 401"),
    Row("eve, no invitation", "POST", "/v1/enrol", "                          403 403 403 403 403 403 403"),
    Row("bob, by eve", "POST", "/v1/enrol", "                                 422 422 422 422 422 422 422"),
    Row("", "GET", "/v1/audit", "                                             200 200 403 403 403 403 401"),
    Row("", "GET", "/v1/audit/head", "                                        200 200 403 403 403 403 401"),
    #                                                                    in attempts; ada is in it, bob is not
    Row("secret round", "PUT", READY, "                                       403 403 403 200 409 403 401"),
    Row("open secret round", "PUT", READY, "                                  403 403 403 200 200 403 401"),
    Row("run", "PUT", READY, "                                                403 403 403 422 422 403 401"),
    Row("no run", "PUT", READY, "                                             403 403 403 404 404 403 401"),
    Row("attempt", "PUT", f"{ATTEMPT}/keys", "                                403 403 403 200 404 403 401"),
    Row("attempt, cleo's", "PUT", f"{ATTEMPT}/keys", "                        403 403 403 422 404 403 401"),
    Row("no attempt", "PUT", f"{ATTEMPT}/keys", "                             403 403 403 409 409 403 401"),
    Row("no run's attempt", "PUT", f"{ATTEMPT}/keys", "                       403 403 403 404 404 403 401"),
    Row("attempt", "PUT", f"{ATTEMPT}/shares", "                              403 403 403 409 409 403 401"),
    Row("no run's attempt", "PUT", f"{ATTEMPT}/shares", "                     403 403 403 404 404 403 401"),
    Row("attempt", "PUT", f"{ATTEMPT}/masked", "                              403 403 403 409 409 403 401"),
    Row("no run's attempt", "PUT", f"{ATTEMPT}/masked", "                     403 403 403 404 404 403 401"),
    Row("attempt", "PATCH", f"{ATTEMPT}/masked", "                            403 403 403 409 409 403 401"),
    Row("no run's attempt", "PATCH", f"{ATTEMPT}/masked", "                   403 403 403 404 404 403 401"),
    Row("attempt", "HEAD", f"{ATTEMPT}/masked", "                             403 403 403 204 204 403 401"),
    Row("no run's attempt", "HEAD", f"{ATTEMPT}/masked", "                    403 403 403 204 204 403 401"),
    Row("attempt", "PUT", f"{ATTEMPT}/consistency", "                         403 403 403 409 409 403 401"),
    Row("no run's attempt", "PUT", f"{ATTEMPT}/consistency", "                403 403 403 404 404 403 401"),
    Row("attempt", "PUT", f"{ATTEMPT}/unmasking", "                           403 403 403 409 409 403 401"),
    Row("no run's attempt", "PUT", f"{ATTEMPT}/unmasking", "                  403 403 403 404 404 403 401"),
    #                                                                    on the workers' port
    Row("", "POST", "/v1/work/lease", "                                       403 403 200 403 403 403 401"),
    Row("job", "POST", "/v1/work/{job_id}/heartbeat", "                       403 403 200 403 403 403 401"),
    Row("job, another's lease", "POST", "/v1/work/{job_id}/heartbeat", "      403 403 409 403 403 403 401"),
    Row("no job", "POST", "/v1/work/{job_id}/heartbeat", "                    403 403 404 403 403 403 401"),
    Row("job", "POST", "/v1/work/{job_id}/result", "                          403 403 200 403 403 403 401"),
    Row("job, another's lease", "POST", "/v1/work/{job_id}/result", "         403 403 409 403 403 403 401"),
    Row("no job", "POST", "/v1/work/{job_id}/result", "                       403 403 404 403 403 403 401"),
    Row("job", "POST", "/v1/work/{job_id}/failure", "                         403 403 200 403 403 403 401"),
    Row("job, another's lease", "POST", "/v1/work/{job_id}/failure", "        403 403 409 403 403 403 401"),
    Row("no job", "POST", "/v1/work/{job_id}/failure", "                      403 403 404 403 403 403 401"),
    Row("question", "PUT", "/v1/work/questions/{question_id}", "              403 403 200 403 403 403 401"),
    Row("no question", "PUT", "/v1/work/questions/{question_id}", "           403 403 200 403 403 403 401"),
    Row("average before co-tuning", "GET", "/v1/work/blobs/{digest}", "       403 403 200 403 403 403 401"),
    Row("no blob", "GET", "/v1/work/blobs/{digest}", "                        403 403 404 403 403 403 401"),
    Row("new blob", "PUT", "/v1/work/blobs/{digest}", "                       403 403 200 403 403 403 401"),
    Row("new blob, another's digest", "PUT", "/v1/work/blobs/{digest}", "     403 403 422 403 403 403 401"),
    Row("new blob", "PATCH", "/v1/work/blobs/{digest}", "                     403 403 409 403 403 403 401"),
    Row("new blob, another's digest", "PATCH", "/v1/work/blobs/{digest}", "   403 403 422 403 403 403 401"),
    Row("new blob", "HEAD", "/v1/work/blobs/{digest}", "                      403 403 204 403 403 403 401"),
    Row("no blob", "HEAD", "/v1/work/blobs/{digest}", "                       403 403 204 403 403 403 401"),
]


@dataclass(frozen=True)
class Scene:
    """A coordinator with a run in its second round, and another whose preparation a worker has leased.

    A third run has published a round of Ada's alone, and shares its aggregate.
    Two runs have secure aggregation: an attempt of one waits for the keys of Ada, Cleo and Dora, the other has a round.
    """

    context: Context
    job: Lease
    question: str
    digests: dict[str, str]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Lease]:
    """The folder of that coordinator, made once."""
    folder = tmp_path_factory.mktemp("matrix") / "coordinator"
    clock = ManualClock()
    with coordinator(folder, clock) as context:
        admit(context, ["dora", "eve"], clock)
        context.membership.revoke("eve", "she left", actor="operator")
        begin(context, SHARING, "shared")
        submit(context, "ada", run_id="shared")
        context.rounds.reconcile()
        work(context)
        work(context)
        begin(context, TERMS)
        play_round(context, 1)
        submit(context, "ada", 50.0, number=2)
        for run_id in ("secret", "open-secret"):
            begin(context, SECRET, run_id)
        for name in ("ada", "cleo", "dora"):
            context.attempts.ready(name, "secret", 1)
        context.rounds.reconcile()
        context.lifecycle.create("next", TERMS, actor="operator")
        context.lifecycle.start("next", actor="operator")
        return folder, lease(context)


@pytest.fixture
def scene(played: tuple[Path, Lease], tmp_path: Path, clock: ManualClock) -> Iterator[Scene]:
    """The scene that the table speaks of, for one row."""
    folder, job = played
    shutil.copytree(folder, tmp_path / "coordinator")
    with coordinator(tmp_path / "coordinator", clock) as context:
        with context.store.read() as tx:
            first, run, past = tx.round(RUN, 1), tx.run(RUN), tx.update(RUN, 1, "bob")
        assert first.aggregate is not None
        assert run.llm_adapter is not None
        assert past is not None
        digests = {
            "published adapter": theta_of(context),
            "ada's update": digest_of(adapter(50.0)),
            "bob's past update": past.digest,
            "average before co-tuning": first.aggregate,
            "LLM's adapter": run.llm_adapter,
            "no blob": digest_of(b"nothing"),
            "new blob": digest_of(NEW_BLOB),
            "new blob, another's digest": digest_of(b"another"),
        }
        question = context.questions.ask(QuestionRequest(run_id=RUN, prompt="Why?"), by="operator")
        yield Scene(context, job, question.id, digests)


def path_of(row: Row, scene: Scene) -> str:
    """Return the path that names the row's object."""
    query = f"?instance={'x' * 22}" if row.route == "/v1/leave" else ""
    return (
        row.route.format(
            run_id=run_of(row),
            number={"past round": 1, "no round": 3}.get(row.object, 2 if run_of(row) == RUN else 1),
            attempt=2 if row.object == "no attempt" else 1,
            digest=scene.digests.get(row.object),
            question_id="0" * 32 if row.object == "no question" else scene.question,
            job_id="nowhere" if row.object == "no job" else scene.job.job_id,
            name={"SLM adapter": "slm-adapter", "LLM adapter": "llm-adapter"}.get(row.object, name_of(row)),
        )
        + query
    )


def run_of(row: Row) -> str:
    """Return the run that the object is, or is of."""
    if row.object.startswith("no run"):
        return "nowhere"
    if "attempt" in row.object:
        return "secret"
    return {
        "new run": "new",
        "shared round": "shared",
        "secret round": "secret",
        "open secret round": "open-secret",
    }.get(row.object, RUN)


def name_of(row: Row) -> str:
    """Return the name of the agent that the object is, or of the artefact that there is none of."""
    return row.object.partition(",")[0].replace(" ", "-")


def token_of(row: Row, scene: Scene) -> int:
    """Return the fencing token of the lease."""
    return scene.job.token + ("another's" in row.object)


def certificate_of(row: Row, _: Scene) -> SignedCertificate:
    """Return a certificate: for this agent by the operator, or not."""
    wrong = {"bob, ada's": ("ada", "operator"), "bob, by ada": ("bob", "ada")}
    of, by = wrong.get(row.object, (name_of(row), "operator"))
    return certificate(of, key_of(of).public, operator=key_of(by))


def keys_of(row: Row, scene: Scene) -> Advert:
    """Return the keys that an agent announces in the attempt."""
    with scene.context.store.read() as tx:
        (attempt,) = tx.attempts.of(tx.round("secret", 1))
    name = "cleo" if "cleo" in row.object else "ada"
    return announce(attempt.terms, name, key_of(name), AttemptSecrets.generate())


def signature_of(row: Row, scene: Scene) -> ManifestSignature:
    """Return a signature over what the run is, by the operator or not."""
    by = "ada" if row.object == "run, by ada" else "operator"
    return ManifestSignature(signature=key_of(by).sign(MANIFEST, scene.context.lifecycle.manifest(RUN).manifest))


def enrolment_of(row: Row, _: Scene) -> EnrolmentRequest:
    """Return an enrolment with a token that nobody was given, by whoever has the key or not."""
    prover = key_of("eve") if row.object == "bob, by eve" else None
    return enrolment("A" * 43, key_of(name_of(row)), name_of(row), prover=prover)


# What good requests carry, which may be another's.
BODIES: dict[str, Callable[[Row, Scene], BaseModel | bytes]] = {
    "PUT {run_id}": lambda row, _: terms_of(rounds=4) if row.object == "run, other terms" else TERMS,
    "PUT signature": signature_of,
    "POST cancel": lambda *_: CancelRequest(reason="enough"),
    "PUT promotion": lambda row, _: PromotionRequest(run_id=RUN, round=2 if row.object == "no round" else 1),
    "POST questions": lambda row, _: QuestionRequest(run_id=run_of(row), prompt="Why?"),
    "PUT {question_id}": lambda *_: QuestionAnswered(answers={}),
    "PUT update": lambda row, _: adapter(51.0 if row.object == "another update than ada's" else 50.0),
    "PUT keys": keys_of,
    "PUT shares": lambda *_: DealtShares(sealed={}),
    "PUT masked": lambda *_: bytes(8),
    "PUT consistency": lambda *_: SignedSurvivors(signature="A" * 86),
    "PUT unmasking": lambda *_: ReleasedShares(own_masks={}, mask_secrets={}),
    "PUT invitation": lambda *_: invitation("A" * 43),
    "PUT certificate": certificate_of,
    "POST revoke": lambda *_: RevocationRequest(reason="it left"),
    "POST enrol": enrolment_of,
    "POST lease": lambda *_: LeaseRequest(worker="w"),
    "POST heartbeat": lambda row, scene: Heartbeat(token=token_of(row, scene)),
    "POST result": lambda row, scene: ResultRequest(
        token=token_of(row, scene), result=result_of(scene.context, scene.job)
    ),
    "POST failure": lambda row, scene: FailureRequest(
        token=token_of(row, scene), code="model_unreadable", message="it is gone"
    ),
    "PUT {digest}": lambda *_: NEW_BLOB,
}


def content_of(row: Row, scene: Scene) -> bytes | None:
    """Return the body of a request, if it has one; of what goes on, the whole."""
    method = "PUT" if row.method in SIGNED_BESIDES else row.method
    make = BODIES.get(f"{method} {row.route.rpartition('/')[2]}")
    body = None if make is None else make(row, scene)
    return body.model_dump_json().encode() if isinstance(body, BaseModel) else body


def sent_of(row: Row, content: bytes | None) -> tuple[bytes | None, dict[str, str]]:
    """Return what a request carries of a body, and its fields."""
    if content is None:
        return None, {}
    match row.method:
        case "HEAD":
            return None, offset_fields(digest_of(content))
        case "PATCH":
            return content[1:], announcing(content[1:]) | append_fields(digest_of(content), 1)
        case _:
            return content, announcing(content) | {"Content-Type": "application/json"}


@pytest.mark.parametrize("row", MATRIX, ids=lambda row: f"{row.method} {row.route} {row.object}")
async def test_everybody_gets_the_answer_that_the_table_says(row: Row, scene: Scene) -> None:
    """Nobody's objects are another's to see or change; what one may not see is not told from what is not there."""
    app = (create_work_app if row.route.startswith("/v1/work") else create_app)(scene.context)
    content, fields = sent_of(row, content_of(row, scene))
    found = []
    for who in WHO:
        async with client(scene.context, who, app=app) as http:
            response = await http.request(row.method, path_of(row, scene), content=content, headers=fields)
            found.append(response.status_code)
    assert found == [int(status) for status in row.statuses.split()]


async def test_what_an_agent_sends_is_its_own(scene: Scene) -> None:
    """Bob's update is Bob's, whatever Ada has sent before; each is in its own slot."""
    app = create_app(scene.context)
    async with client(scene.context, "bob", app=app) as http:
        sent = await http.put(
            UPDATES.format(run_id=RUN, number=2), content=adapter(51.0), headers=announcing(adapter(51.0))
        )
    assert sent.json()["agent"] == "bob"
    with scene.context.store.read() as tx:
        updates = {update.agent: update.digest for update in tx.updates(RUN, 2)}
    assert updates == {"ada": digest_of(adapter(50.0)), "bob": digest_of(adapter(51.0))}


def test_the_table_has_every_route_with_something_and_with_nothing() -> None:
    """A route that names an object is in it twice or more, and no route is missing."""
    tried: dict[tuple[str, str], set[str]] = {}
    for row in MATRIX:
        tried.setdefault((row.method, row.route), set()).add(row.object)
    assert tried.keys() == PUBLIC.keys() | INTERNAL.keys()
    assert [route for route, objects in tried.items() if "{" in route[1] and len(objects) < 2] == []


def test_the_table_agrees_with_who_may_do_what() -> None:
    """401 and 403 are for those whom no route lets in, and for nobody else; an invitation is asked of everybody."""
    for row in MATRIX:
        allowed = (PUBLIC | INTERNAL)[row.method, row.route]
        for who, status in zip(WHO, row.statuses.split(), strict=True):
            let_in = Role.ANYONE in allowed or (who not in {None, "eve"} and ROLES[str(who)] in allowed)
            refused = status == ("401" if who is None else "403")
            assert refused != let_in or (row.object, status) == ("eve, no invitation", "403"), (row, who)
