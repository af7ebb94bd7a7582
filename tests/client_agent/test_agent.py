import json
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import httpx
import numpy as np
import pytest

from bench.federation import Federation, ManualClock, believed, client_of, key_of, make_agent, open_federation
from bench.no_op import InProcess, NoOpTrainer
from services.client_agent.agent import AFTER_FAILURE, LEAST_POLL_SECONDS, Agent
from services.client_agent.coordinator_client import CoordinatorClient
from services.client_agent.policy import Policy
from services.client_agent.state import StateFolder
from services.client_agent.status import Phase, Status
from services.client_agent.status_page import create_status_page
from services.client_agent.trainer import Progress, Trained, TrainingOrder
from shared.adapter_folder import WEIGHTS
from shared.backoff import Backoff
from shared.credentials import BearerToken
from shared.errors import (
    AttemptRefused,
    BaseModelMismatch,
    DigestMismatch,
    FedCoLLMError,
    FederationMismatch,
    LayoutMismatch,
    LoraMismatch,
    LossNotFinite,
    ManifestMismatch,
    ManifestUnsigned,
    PolicyRefused,
    RemoteProblem,
    SignatureInvalid,
    TokenizerMismatch,
    TrainerStopped,
    Unreachable,
    ValuesNotFinite,
)
from shared.protocol.attempts import AttemptPlace, Summons, UnmaskingWanted
from shared.protocol.digests import digest_of
from shared.protocol.manifest import MANIFEST, Manifest, SignedManifest
from shared.protocol.membership import UNWILLING
from shared.protocol.messages import LONGEST_POLL_SECONDS, MOST_DECLINED, Wanted
from shared.protocol.rounds import RoundState, RunState, data_seed
from shared.transport import Transport, WithoutSocket
from tests.support.agents import ADA
from tests.support.cotuners import AddingCoTuner
from tests.support.federations import LLM_LAYOUT, RUN, SLM_LAYOUT, adapter, federation, terms_of
from tests.support.pauses import Enough, Pauses

pytestmark = pytest.mark.anyio

SLM = "the/agents/own/slm"
LONGEST = Backoff(AFTER_FAILURE.first_seconds, AFTER_FAILURE.most_seconds, lambda: 1.0)
NOTHING = Wanted(assignment=None, summons=None, published=None)


class FailingTrainer:
    """Fails with the errors that it was given, then trains."""

    def __init__(self, *errors: FedCoLLMError) -> None:
        self._errors = list(errors)
        self.tries = 0
        self.inner = NoOpTrainer()

    async def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
        """Fail or train."""
        self.tries += 1
        if self._errors:
            raise self._errors.pop(0)
        return self.inner.train(order, on_progress)


def with_ada(trainer: object, tmp_path: Path, clock: ManualClock) -> Awaitable[Federation]:
    """Open a federation whose agent ada trains with ``trainer``."""
    trainers = {"ada": trainer, "bob": InProcess(NoOpTrainer())}
    return open_federation(tmp_path, trainers, AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT), clock)


async def opened(everybody: Federation) -> None:
    """Start a run, prepare it and sign it."""
    await everybody.start(RUN, terms_of())
    await everybody.work()


def agent_of(everybody: Federation, trainer: object, folder: Path, pause: object) -> Agent:
    """Return another agent object of ada's, on her folder."""
    client = client_of(everybody.transports["ada"])
    return make_agent(
        *("ada", client, trainer, StateFolder(folder / "ada"), everybody.statuses["ada"]),
        pause=pause,
        slm=SLM,
        backoff=LONGEST,
    )


async def test_an_agent_takes_part_in_a_round(tmp_path: Path, clock: ManualClock) -> None:
    """It holds theta^0, trains once, sends its update, and then holds theta^1."""
    async with federation(tmp_path, clock) as everybody:
        await everybody.start(RUN, terms_of())
        view = await everybody.finish(RUN)
        assert view.state is RunState.FINISHED
        for name in ("ada", "bob"):
            assert StateFolder(tmp_path / name).published == view.published
            status = everybody.statuses[name].view()
            assert status.rounds_taken_part == 1
            assert status.holding == view.published
            assert status.error is None
            assert status.received_bytes == 2 * len(adapter(0.0))
            assert status.sent_bytes >= len(adapter(0.0))


async def test_the_adapter_that_an_agent_keeps_names_the_agents_own_base_model(
    tmp_path: Path, clock: ManualClock
) -> None:
    """The coordinator's path of it means nothing here, and no agent learns what its folders are called."""
    async with federation(tmp_path, clock) as everybody:
        await everybody.start(RUN, terms_of())
        await everybody.finish(RUN)
        artefact = everybody.context.lifecycle.artefacts(RUN)[0]
    config = json.loads((tmp_path / "ada" / "slm-adapter" / "adapter_config.json").read_bytes())
    assert config == artefact.adapter_config | {"base_model_name_or_path": "the SLM of ada"}


async def test_agents_receive_theta_after_co_tuning_not_the_average(tmp_path: Path, clock: ManualClock) -> None:
    """What an agent holds is the aggregate plus what co-tuning did to it; the aggregate it never sees."""
    async with federation(tmp_path, clock) as everybody:
        await everybody.start(RUN, terms_of())
        view = await everybody.finish(RUN)
        with everybody.context.store.read() as tx:
            current = tx.round(RUN, 1)
        held = StateFolder(tmp_path / "ada").adapter(view.published.digest).read_bytes()
        aggregate = everybody.context.blobs.path(current.aggregate).read_bytes()
    difference = np.frombuffer(held[-56:], "<f4") - np.frombuffer(aggregate[-56:], "<f4")
    np.testing.assert_allclose(difference, 1, rtol=1e-6)
    assert digest_of(aggregate).removeprefix("sha256:") not in {path.name for path in (tmp_path / "ada").rglob("*")}


async def test_no_more_is_fetched_than_the_policy_makes_room_for(tmp_path: Path, clock: ManualClock) -> None:
    """A manifest may name any size: an adapter of one byte more than the agent's own rule allows is not asked for."""
    size = len(adapter(0.0))
    async with federation(tmp_path, clock) as everybody:
        await opened(everybody)
        for limit in (size - 1, size):
            policy = Policy(allow_plaintext=True, largest_adapter_bytes=limit)
            client = client_of(everybody.transports["ada"])
            folder, status = StateFolder(tmp_path / "ada"), everybody.statuses["ada"]
            agent = make_agent("ada", client, InProcess(NoOpTrainer()), folder, status, slm=SLM, policy=policy)
            if limit < size:
                with pytest.raises(PolicyRefused, match=rf"largest_adapter_bytes is {limit}, .* has {size}"):
                    await agent.step(wait_seconds=0)
                assert status.received_bytes == 0
            else:
                await agent.step(wait_seconds=0)
                assert status.received_bytes == size


class HostileCoordinator(CoordinatorClient):
    """Publishes whatever bytes it likes, under their own digest."""

    def __init__(self, transport: Transport, blob: bytes) -> None:
        super().__init__(transport, **believed())
        self._blob = blob

    async def wanted(self, *asked: object, **more: object) -> Wanted:
        """Name the bytes."""
        answer = await super().wanted(*asked, **more)
        published = answer.published.model_copy(update={"digest": digest_of(self._blob)})
        return answer.model_copy(update={"published": published})

    async def fetch_adapter(self, digest: str, into: Path, *, size: int) -> int:
        """Give them."""
        assert (digest, size) == (digest_of(self._blob), len(self._blob))
        into.write_bytes(self._blob)
        return size


@pytest.mark.parametrize(
    ("blob", "error"),
    [
        (adapter(float("nan")), ValuesNotFinite),
        (adapter(1.0).replace(b"lora_A", b"lora_X"), LayoutMismatch),
        (b"\x80\x05" + adapter(1.0)[2:], LayoutMismatch),
    ],
    ids=["no numbers", "another layout", "a pickle"],
)
async def test_what_is_no_adapter_of_the_run_is_not_put_where_adapters_are_used(
    blob: bytes, error: type[FedCoLLMError], tmp_path: Path, clock: ManualClock
) -> None:
    """A coordinator may name any bytes by their digest; an organisation's own programs are given adapters alone."""
    async with federation(tmp_path, clock) as everybody:
        await everybody.start(RUN, terms_of())
        before = await everybody.finish(RUN)
        agent = agent_of(everybody, InProcess(NoOpTrainer()), tmp_path, Pauses(0))
        agent._coordinator = HostileCoordinator(everybody.transports["ada"], blob)
        with pytest.raises(error):
            await agent.step(wait_seconds=0)
    folder = StateFolder(tmp_path / "ada")
    assert folder.published == before.published
    assert digest_of((folder.peft_folder / WEIGHTS).read_bytes()) == before.published.digest


@pytest.mark.parametrize(
    "error",
    [
        BaseModelMismatch("another base model"),
        TokenizerMismatch("another tokenizer"),
        LoraMismatch("other tensors"),
        LossNotFinite("the loss became NaN at step 3"),
        TrainerStopped("the training process ended with code 137"),
    ],
)
async def test_what_stops_a_training_is_shown_and_waited_out(
    error: FedCoLLMError, tmp_path: Path, clock: ManualClock
) -> None:
    """Code and message reach the status page; the agent pauses between tries, and sends nothing meanwhile."""
    trainer, pauses = FailingTrainer(*[error] * 3), Pauses(3)
    async with with_ada(trainer, tmp_path, clock) as everybody:
        await opened(everybody)
        with pytest.raises(Enough):
            await agent_of(everybody, trainer, tmp_path, pauses).run()
        status = everybody.statuses["ada"].view()
        assert (await everybody.rounds(RUN)).rounds[0].accepted == 0
    assert pauses.seconds == [10.0, 20.0, 40.0]
    assert trainer.tries == 3
    assert status.phase is Phase.FAILED
    assert status.error == f"{error.code}: {error}"
    assert status.rounds_taken_part == 0


async def test_an_agent_recovers_from_a_failure(tmp_path: Path, clock: ManualClock) -> None:
    """When what was wrong has been put right the next step takes part, and the error is gone from the page."""
    trainer = FailingTrainer(BaseModelMismatch("another base model"))
    async with with_ada(trainer, tmp_path, clock) as everybody:
        await opened(everybody)
        with pytest.raises(BaseModelMismatch):
            await everybody.agents["ada"].step(wait_seconds=0)
        await everybody.agents["ada"].step(wait_seconds=0)
        assert (await everybody.rounds(RUN)).rounds[0].accepted == 1
        assert everybody.statuses["ada"].view().error is None


async def test_why_a_run_was_declined_stays_on_the_page(tmp_path: Path, clock: ManualClock) -> None:
    """Also when nothing is wanted any more: it has not worked for that run, and lists it until it has."""
    async with with_ada(InProcess(NoOpTrainer()), tmp_path, clock) as everybody:
        status, client = everybody.statuses["ada"], client_of(everybody.transports["ada"])
        refusing = make_agent(
            *("ada", client, InProcess(NoOpTrainer()), StateFolder(tmp_path / "other"), status),
            policy=Policy(allow_plaintext=False),
            slm=SLM,
            clock=clock,
        )
        await opened(everybody)
        with pytest.raises(PolicyRefused):
            await refusing.step(wait_seconds=0)
        status.succeed()
        status.enter(Phase.WAITING)
        view = status.view()
        assert (view.run_id, view.last_run_id, view.error) == (None, None, None)
        (run,) = view.declined
        assert (run.run_id, run.code, run.told, run.at.timestamp()) == (RUN, "policy_refused", UNWILLING, clock())
        assert run.reason.startswith("policy.allow_plaintext is false")
        refusing._policy = Policy(allow_plaintext=True)
        await refusing.step(wait_seconds=0)
        assert status.view().declined == ()
        assert (status.last_run_id, status.last_round) == (RUN, 1)


async def test_an_attempt_that_is_refused_was_not_worked_for(tmp_path: Path, clock: ManualClock) -> None:
    """One that is answered was, also by an agent that has trained before it was started anew."""

    class Member:
        def __init__(self) -> None:
            self.refusals = [AttemptRefused("this agent has signed no survivors")]

        async def answer(self, _: Summons) -> None:
            if self.refusals:
                raise self.refusals.pop()

    summons = UnmaskingWanted(place=AttemptPlace(run_id=RUN, round=2, attempt=1), signatures={})
    summoned = Wanted(assignment=None, summons=summons, published=None)
    status = Status()
    asking = Answering(clock, 1.0, summoned, summoned)
    agent = make_agent("ada", asking, FailingTrainer(), StateFolder(tmp_path), status, slm=SLM, clock=clock)
    agent._member = Member()
    with pytest.raises(AttemptRefused):
        await agent.step(wait_seconds=0)
    assert (status.last_run_id, [run.code for run in status.view().declined]) == (None, ["attempt_refused"])
    await agent.step(wait_seconds=0)
    assert (status.last_run_id, status.last_round, status.view().declined) == (RUN, 2, ())


async def test_a_run_for_another_slm_keeps_no_agent_from_its_own(tmp_path: Path, clock: ManualClock) -> None:
    """What it cannot train comes last from then on, and is tried again when nobody else asks."""
    trainer = FailingTrainer(BaseModelMismatch("another base model"))
    async with with_ada(trainer, tmp_path, clock) as everybody:
        ada = everybody.agents["ada"]
        await opened(everybody)
        clock.advance(1)
        await everybody.start("second", terms_of(seed=7))
        await everybody.work()
        with pytest.raises(BaseModelMismatch):
            await ada.step(wait_seconds=0)
        await ada.step(wait_seconds=0)
        taken = {run: (await everybody.rounds(run)).rounds[0].accepted for run in (RUN, "second")}
        assert taken == {RUN: 0, "second": 1}
        await ada.step(wait_seconds=0)
        assert (await everybody.rounds(RUN)).rounds[0].accepted == 1


async def test_what_a_coordinator_refuses_is_shown_by_its_code(tmp_path: Path) -> None:
    """An organisation reads the code that the coordinator sent, once."""

    class Refusing:
        async def wanted(self, holding: str | None, declined: Mapping[str, str], *, wait_seconds: float) -> None:  # noqa: ARG002
            raise RemoteProblem("not_authenticated", 401, "no token that this coordinator knows")

    status, pauses = Status(), Pauses(1)
    with pytest.raises(Enough):
        await make_agent(
            "ada", Refusing(), FailingTrainer(), StateFolder(tmp_path), status, pause=pauses, slm=SLM
        ).run()
    assert status.view().error == "not_authenticated: no token that this coordinator knows (HTTP 401)"


async def test_a_coordinator_that_is_away_is_no_hot_loop(tmp_path: Path) -> None:
    """Nobody there: the error is shown and the next try comes after a pause."""

    class Away:
        async def wanted(self, holding: str | None, declined: Mapping[str, str], *, wait_seconds: float) -> None:  # noqa: ARG002
            raise Unreachable("nobody there")

    status, pauses = Status(), Pauses(2)
    with pytest.raises(Enough):
        await make_agent(
            *("ada", Away(), FailingTrainer(), StateFolder(tmp_path), status), pause=pauses, slm=SLM, backoff=LONGEST
        ).run()
    assert status.view().error == "unreachable: nobody there"
    assert pauses.seconds == [10.0, 20.0]


class Answering:
    """Answers each question after so many seconds, with one of these while there are any, and then with nothing."""

    def __init__(self, clock: ManualClock, seconds: float, *answers: Wanted, most: int = 5) -> None:
        self._clock = clock
        self._seconds = seconds
        self._answers = list(answers)
        self._most = most
        self.asked: list[tuple[list[str], float]] = []

    async def wanted(self, holding: str | None, declined: Mapping[str, str], *, wait_seconds: float) -> Wanted:  # noqa: ARG002
        """Answer."""
        if len(self.asked) == self._most:
            raise Enough
        self.asked.append((list(declined), wait_seconds))
        self._clock.advance(self._seconds)
        return self._answers.pop(0) if self._answers else NOTHING


@pytest.mark.parametrize(("seconds", "pauses"), [(0.0, 4), (0.9, 4), (1.0, 0), (25.0, 0)])
async def test_a_coordinator_that_answers_nothing_at_once_is_no_hot_loop(
    seconds: float, pauses: int, tmp_path: Path, clock: ManualClock
) -> None:
    """It would fill the ledger. No pause comes after a long poll, nor after the first one, which waits for nothing."""
    other, taken = Answering(clock, seconds), Pauses(9)
    state = StateFolder(tmp_path)
    agent = make_agent("ada", other, FailingTrainer(), state, Status(), pause=taken, slm=SLM, clock=clock)
    with pytest.raises(Enough):
        await agent.run()
    assert taken.seconds == [LEAST_POLL_SECONDS] * pauses
    assert [wait for _, wait in other.asked] == [0.0, *[LONGEST_POLL_SECONDS] * 4]


async def test_what_was_asked_before_is_no_news(tmp_path: Path, clock: ManualClock) -> None:
    """Whoever asks for one round again and again is not asked faster, and it counts as one."""
    async with with_ada(InProcess(NoOpTrainer()), tmp_path, clock) as everybody:
        await everybody.start(RUN, terms_of(rounds=2))
        await everybody.work()
        client = client_of(everybody.transports["ada"])
        first = everybody.context.rounds.wanted("ada")
        again = Answering(clock, 0.0, first, first, first)
        client.wanted = again.wanted
        taken, state, status = Pauses(9), StateFolder(tmp_path / "ada"), Status()
        trainer = InProcess(NoOpTrainer())
        agent = make_agent("ada", client, trainer, state, status, pause=taken, slm=SLM, clock=clock)
        with pytest.raises(Enough):
            await agent.run()
        assert taken.seconds == [LEAST_POLL_SECONDS] * 4
        assert status.rounds_taken_part == 1
        assert json.loads((tmp_path / "ada" / "taken.json").read_bytes()) == [[RUN, 1, clock()]]

        await everybody.finish(RUN)
        assert [run_round for *run_round, _ in json.loads((tmp_path / "ada" / "taken.json").read_bytes())] == [
            [RUN, 1],
            [RUN, 2],
        ]


async def test_of_declined_runs_the_newest_are_told(tmp_path: Path, clock: ManualClock) -> None:
    """However many there are, and however long their ids, the coordinator understands the question."""
    async with federation(tmp_path, clock) as everybody:
        ada = everybody.agents["ada"]
        declined = [f"{number:064}" for number in range(MOST_DECLINED + 50)]
        for run_id in [*declined, declined[60]]:
            with pytest.raises(PolicyRefused), ada._declined.unless_done(run_id):
                raise PolicyRefused("no")
        await ada.step(wait_seconds=0)
        assert list(ada._declined.told) == [*declined[50:60], *declined[61:], declined[60]]
        assert everybody.context.presence.agent("ada").declines[declined[60]] == UNWILLING
        assert everybody.statuses["ada"].sent.bytes < 8192


async def test_a_coordinator_that_is_away_shows_while_it_is(tmp_path: Path) -> None:
    """An agent that waits for an answer says so on its page, and no longer once it has one."""
    status, shown = Status(), []

    def coordinator(_: httpx.Request) -> httpx.Response:
        shown.append(status.view().error)
        if len(shown) < 3:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json={"assignment": None, "summons": None, "published": None})

    away = WithoutSocket(httpx.MockTransport(coordinator))
    async with httpx.AsyncClient(transport=away, base_url="http://away") as client:
        transport = Transport(client, BearerToken(""), status.sent, patience_seconds=None, on_retry=status.retrying)
        agent = make_agent("ada", client_of(transport), FailingTrainer(), StateFolder(tmp_path), status, slm=SLM)
        await agent.step(wait_seconds=0)
    assert shown[0] is None
    assert {error.split(" (")[0] for error in shown[1:]} == {"unreachable: http://away/v1/wanted did not answer"}
    assert status.view().error is None


async def test_an_update_that_comes_too_late_is_dropped(tmp_path: Path, clock: ManualClock) -> None:
    """The round went on without it: the agent shows no error, and takes part in the next one."""

    class SlowTrainer(FailingTrainer):
        async def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
            trained = await super().train(order, on_progress)
            if self.tries == 1:
                clock.advance(10)
                everybody.context.rounds.reconcile()
            return trained

    trainer = SlowTrainer()
    async with with_ada(trainer, tmp_path, clock) as everybody:
        await everybody.start(RUN, terms_of(rounds=2))
        await everybody.work()
        await everybody.agents["bob"].step(wait_seconds=0)
        await everybody.agents["ada"].step(wait_seconds=0)
        first = (await everybody.rounds(RUN)).rounds[0]
        assert (first.state, first.accepted, first.late) == (RoundState.AGGREGATED, 1, 1)
        assert everybody.statuses["ada"].view().error is None
        assert everybody.statuses["ada"].rounds_taken_part == 0
        assert (await everybody.finish(RUN)).state is RunState.FINISHED
        assert everybody.statuses["ada"].rounds_taken_part == 1


async def test_a_run_that_was_cancelled_during_training_does_not_stop_the_agent(
    tmp_path: Path, clock: ManualClock
) -> None:
    """The next run finds the agent waiting as ever."""

    class CancellingTrainer(FailingTrainer):
        async def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
            if order.manifest.run_id == RUN:
                everybody.context.lifecycle.cancel(RUN, "no", actor="operator")
            return await super().train(order, on_progress)

    async with with_ada(CancellingTrainer(), tmp_path, clock) as everybody:
        await opened(everybody)
        await everybody.agents["ada"].step(wait_seconds=0)
        clock.advance(1)
        await everybody.start("next", terms_of())
        assert (await everybody.finish("next")).state is RunState.FINISHED
        assert everybody.statuses["ada"].rounds_taken_part == 1


async def test_a_restarted_agent_does_not_train_again(tmp_path: Path, clock: ManualClock) -> None:
    """The update was stored but not sent when the agent died: the new one sends exactly it."""

    class Cut(Exception):
        pass

    class DeafClient(CoordinatorClient):
        async def send_update(self, *_: object, **__: object) -> None:
            raise Cut

    trainer = NoOpTrainer()
    async with with_ada(InProcess(trainer), tmp_path, clock) as everybody:
        await opened(everybody)
        state = StateFolder(tmp_path / "ada")
        dying = make_agent(
            "ada", DeafClient(everybody.transports["ada"], **believed()), InProcess(trainer), state, Status(), slm=SLM
        )
        with pytest.raises(Cut):
            await dying.step(wait_seconds=0)
        assert trainer.trainings == 1
        update = state.update_file(RUN, 1).read_bytes()
        await everybody.agents["ada"].step(wait_seconds=0)
        assert trainer.trainings == 1
        with everybody.context.store.read() as tx:
            assert [stored.digest for stored in tx.updates(RUN, 1)] == [digest_of(update)]


@pytest.mark.parametrize("restarted", [False, True])
async def test_other_terms_under_the_same_run_id_are_trained_by(
    restarted: bool,  # noqa: FBT001 - drawn
    tmp_path: Path,
    clock: ManualClock,
) -> None:
    """A coordinator that lost its folder begins the run anew: nothing of the old one's terms is used or sent."""

    class Noting(FailingTrainer):
        async def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
            epochs.append(order.manifest.training.epochs)
            return await super().train(order, on_progress)

    epochs: list[int] = []
    trainer, terms = Noting(), terms_of()
    async with with_ada(trainer, tmp_path, clock) as everybody:
        await opened(everybody)
        ada = everybody.agents["ada"]
        await ada.step(wait_seconds=0)
    shutil.rmtree(tmp_path / "coordinator")
    async with with_ada(trainer, tmp_path, clock) as everybody:
        other = terms.model_copy(update={"training": terms.training.model_copy(update={"epochs": 5})})
        await everybody.start(RUN, other)
        if not restarted:
            ada._coordinator = client_of(everybody.transports["ada"])
            everybody.agents["ada"] = ada
        await everybody.finish(RUN)
        assert epochs == [1, 5]


async def test_the_same_terms_under_another_id_are_not_trained_in_the_same_way(
    tmp_path: Path, clock: ManualClock
) -> None:
    """By its seed an update is made, and rounded to integers: the same ones in two sums would tell who has left.

    An agent makes its seed of what the operator has signed, the round and its own name.
    """

    class Noting(FailingTrainer):
        async def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
            seeds.append(order.seed)
            return await super().train(order, on_progress)

    seeds: list[int] = []
    async with with_ada(Noting(), tmp_path, clock) as everybody:
        for run_id in (RUN, "again"):
            await everybody.start(run_id, terms_of(rounds=2, seed=9))
            await everybody.finish(run_id)
    assert seeds == [data_seed(run_id, 9, number, "ada") for run_id in (RUN, "again") for number in (1, 2)]
    assert len(set(seeds)) == 4


async def test_a_manifest_that_is_not_the_assignments_is_not_trained_by(tmp_path: Path, clock: ManualClock) -> None:
    """What a round was opened by and what the coordinator shows must be one thing: the agent checks."""

    class Changing(CoordinatorClient):
        async def manifest(self, run_id: str) -> Manifest:
            return (await super().manifest(run_id)).model_copy(update={"run_name": "another"})

    trainer = NoOpTrainer()
    async with federation(tmp_path, clock) as everybody:
        await opened(everybody)
        client = Changing(everybody.transports["ada"], **believed())
        with pytest.raises(DigestMismatch, match=f"the manifest of run {RUN}"):
            await make_agent(
                "ada", client, InProcess(trainer), StateFolder(tmp_path / "other"), Status(), slm=SLM
            ).step(wait_seconds=0)
    assert trainer.trainings == 0


async def test_progress_shows_on_the_status_page(tmp_path: Path, clock: ManualClock) -> None:
    """Step, loss and phase are for this machine's eyes, and for no request of the agent's."""
    seen = []

    class Watched(FailingTrainer):
        async def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
            on_progress(Progress(step=3, steps=7, loss=0.123456))
            async with httpx.AsyncClient(transport=page, base_url="http://page") as http:
                seen.append((await http.get("/status.json")).json())
            return await super().train(order, on_progress)

    async with with_ada(Watched(), tmp_path, clock) as everybody:
        page = httpx.ASGITransport(app=create_status_page(everybody.statuses["ada"], ADA))
        await opened(everybody)
        await everybody.agents["ada"].step(wait_seconds=0)
        async with httpx.AsyncClient(transport=page, base_url="http://page") as http:
            assert (await http.get("/healthz")).json() == {"status": "ok"}
            after = (await http.get("/status.json")).json()
        log = everybody.context.lifecycle.events(RUN, after=0)
    (during,) = seen
    assert (during["phase"], during["run_id"], during["round"]) == ("training", RUN, 1)
    assert (during["step"], during["steps"], during["loss"]) == (3, 7, 0.123456)
    assert after["rounds_taken_part"] == 1
    assert "0.123456" not in json.dumps([event.detail for event in log])


async def test_what_an_agent_sends_is_counted(tmp_path: Path, clock: ManualClock) -> None:
    """The page's bytes are those of the one update and of the heads, each no larger than a message."""
    async with federation(tmp_path, clock) as everybody:
        await everybody.start(RUN, terms_of())
        await everybody.finish(RUN)
        sent = everybody.statuses["ada"].sent
        assert len(adapter(0.0)) < sent.bytes < len(adapter(0.0)) + 1000 * sent.requests


async def test_a_weighted_run_is_told_the_number_of_examples_and_no_other_is(
    tmp_path: Path, clock: ManualClock
) -> None:
    """The count of private examples crosses the wire only where the run's terms say so."""
    weights = {}
    for weighting in ("unweighted", "examples"):
        async with federation(tmp_path / weighting, clock) as everybody:
            await everybody.start(RUN, terms_of(weighting=weighting))
            await everybody.finish(RUN)
            with everybody.context.store.read() as tx:
                weights[weighting] = [update.weight for update in tx.updates(RUN, 1)]
    assert weights["unweighted"] == [1, 1]
    assert all(weight > 1 for weight in weights["examples"])


# --- what the operator has not signed --------------------------------------------------------------------------------


class LyingTransport:
    """Hands out another manifest than the coordinator that it leads to."""

    def __init__(self, transport: Transport, lie: Callable[[SignedManifest], SignedManifest]) -> None:
        self._transport = transport
        self._lie = lie

    def __getattr__(self, name: str) -> object:
        """Be the transport in everything else."""
        return getattr(self._transport, name)

    async def call(self, *request: object, **more: object) -> object:
        """Ask, and change the answer if it is a manifest."""
        answer = await self._transport.call(*request, **more)
        return self._lie(answer) if isinstance(answer, SignedManifest) else answer


def signed(manifest: Manifest, by: str = "operator") -> SignedManifest:
    """Return a manifest with somebody's signature."""
    return SignedManifest(manifest=manifest, signature=key_of(by).sign(MANIFEST, manifest))


def more_epochs(manifest: Manifest) -> Manifest:
    """Return a manifest by which an agent would learn its data by heart."""
    return manifest.model_copy(update={"training": manifest.training.model_copy(update={"epochs": 1000})})


LIES: dict[str, tuple[Callable[[SignedManifest], SignedManifest], type[FedCoLLMError]]] = {
    "unsigned": (lambda told: told.model_copy(update={"signature": None}), ManifestUnsigned),
    "altered": (lambda told: told.model_copy(update={"manifest": more_epochs(told.manifest)}), SignatureInvalid),
    "signed by somebody else": (lambda told: signed(more_epochs(told.manifest), by="coordinator"), SignatureInvalid),
    "of another run": (lambda told: signed(told.manifest.model_copy(update={"run_id": "other"})), ManifestMismatch),
    "of another federation": (
        lambda told: signed(told.manifest.model_copy(update={"federation": "other"})),
        FederationMismatch,
    ),
}


@pytest.mark.parametrize("kind", LIES)
async def test_an_agent_trains_for_nothing_that_its_operator_has_not_signed(
    kind: str, tmp_path: Path, clock: ManualClock
) -> None:
    """It says why, and asks for that run last from then on; a run that is signed it trains for."""
    lie, error = LIES[kind]
    trainer = NoOpTrainer()
    async with federation(tmp_path, clock) as everybody:
        await opened(everybody)
        lying = LyingTransport(everybody.transports["ada"], lie)
        state = StateFolder(tmp_path / "ada")
        ada = make_agent("ada", client_of(lying), InProcess(trainer), state, Status(), slm=SLM)
        with pytest.raises(error, match=f"run {RUN}"):
            await ada.step(wait_seconds=0)
        assert trainer.trainings == 0
        assert list(ada._declined.told) == [RUN]
        honest = make_agent("ada", client_of(everybody.transports["ada"]), InProcess(trainer), state, Status(), slm=SLM)
        await honest.step(wait_seconds=0)
        assert trainer.trainings == 1


def importing(manifest: Manifest) -> Manifest:
    """Return a manifest whose configuration makes PEFT import a module."""
    imports = {"base_model_class": "Model", "parent_library": "antigravity"}
    return manifest.model_copy(update={"adapter_config": {**manifest.adapter_config, "auto_mapping": imports}})


async def test_what_an_organisation_loads_with_peft_is_plain_lora(tmp_path: Path, clock: ManualClock) -> None:
    """Though its operator has signed a configuration that says more: it is not written, and the setting is named."""
    async with federation(tmp_path, clock) as everybody:
        await everybody.start(RUN, terms_of())
        await everybody.finish(RUN)
        lying = LyingTransport(everybody.transports["ada"], lambda told: signed(importing(told.manifest)))
        state = StateFolder(tmp_path / "another")
        ada = make_agent("ada", client_of(lying), InProcess(NoOpTrainer()), state, Status(), slm=SLM)
        with pytest.raises(LoraMismatch, match=r"^auto_mapping of an adapter's configuration"):
            await ada.step(wait_seconds=0)
        assert not state.peft_folder.exists()


async def test_an_adapter_is_taken_only_of_a_run_that_the_operator_has_signed(
    tmp_path: Path, clock: ManualClock
) -> None:
    """What an organisation uses was made as it was told."""
    async with federation(tmp_path, clock) as everybody:
        await everybody.start(RUN, terms_of())
        await everybody.finish(RUN)
        lie, error = LIES["altered"]
        lying = LyingTransport(everybody.transports["ada"], lie)
        state = StateFolder(tmp_path / "another")
        ada = make_agent("ada", client_of(lying), InProcess(NoOpTrainer()), state, Status(), slm=SLM)
        with pytest.raises(error):
            await ada.step(wait_seconds=0)
        assert state.published is None
