"""The hold-out's report: what a run has brought this organisation, with 95 % intervals; for its own eyes only.

Accuracies are shares of questions, or of answers' tokens where the task is completion; losses are nats a token.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import sub
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import AwareDatetime, BaseModel, Field

from services.client_agent.holdout_folder import AGGREGATE, BASE, PUBLISHED, STANDALONE, Model, RunNote, reports_in
from services.client_agent.trainer import Measured
from shared.cli.console import percent
from shared.ml.intervals import mean_interval, paired_interval, ratio_interval, share_interval
from shared.protocol.names import RunId
from shared.protocol.terms import FROZEN

Interval: TypeAlias = tuple[float, float] | None


class Result(BaseModel):
    """What a model has scored; an interval is None where one example says too little."""

    accuracy: float
    accuracy_interval: Interval
    loss: float
    loss_interval: Interval
    model_config = FROZEN


class RoundReport(BaseModel):
    """A round that has published an adapter.

    ``trainings`` is how often this organisation's data has been trained on until then; ``standalone`` is after as many
    on them alone, and None while it lags behind. ``aggregate`` is None where it was not shared, or is not measured.
    ``gain`` is what the published adapter scores more than the standalone one, on the same examples.
    """

    round: int
    trainings: int
    standalone: Result | None
    aggregate: Result | None
    published: Result
    gain: Result | None
    model_config = FROZEN


class RunReport(BaseModel):
    """A run's report; its rounds are in order, the newest last.

    ``standalone_trainings`` says how many trainings on this organisation's data alone are done, and ``trouble`` why it
    does not go on, if something is wrong. ``left_out`` examples of the file are trained on too.
    """

    run_id: RunId
    run_name: str
    at: AwareDatetime
    trouble: str | None
    completions: bool
    examples: int
    left_out: int
    chance: Annotated[float, Field(ge=0, le=1)]
    shares_aggregate: bool
    standalone_trainings: int
    zero_shot: Result | None
    rounds: tuple[RoundReport, ...]
    model_config = FROZEN

    @property
    def shown(self) -> RoundReport | None:
        """The newest round in which everything that there will be is measured, else the newest."""
        compared = [one for one in self.rounds if one.gain is not None]
        return next(reversed(compared or self.rounds), None)


class Reports(BaseModel):
    """Those of all runs, the newest first."""

    runs: tuple[RunReport, ...]
    model_config = FROZEN


def reports(state_dir: Path) -> Reports:
    """Return what there is."""
    return Reports(runs=tuple(RunReport.model_validate_json(content) for content in reports_in(state_dir)))


def report_of(
    note: RunNote, measured: Mapping[Model, Measured], *, trouble: str | None, at: AwareDatetime
) -> RunReport:
    """Return the report that measurements of a run make."""
    base = measured.get(BASE)
    published = sorted(model.number for model in measured if model.kind == PUBLISHED)
    standalone = [model.number for model in measured if model.kind == STANDALONE]
    return RunReport(
        run_id=note.manifest.run_id,
        run_name=note.manifest.run_name,
        at=at,
        trouble=trouble,
        completions=note.manifest.task.kind == "completion",
        examples=0 if base is None else len(base.right),
        left_out=0 if base is None else base.left_out,
        chance=0.0 if base is None else base.chance,
        shares_aggregate=note.manifest.share_aggregate,
        standalone_trainings=max(standalone, default=0),
        zero_shot=None if base is None else _result(base),
        rounds=tuple(_round(number, note.trainings(number), measured) for number in published),
    )


def _round(number: int, trainings: int, measured: Mapping[Model, Measured]) -> RoundReport:
    published = measured[Model(PUBLISHED, number)]
    standalone, aggregate = measured.get(Model(STANDALONE, trainings)), measured.get(Model(AGGREGATE, number))
    return RoundReport(
        round=number,
        trainings=trainings,
        standalone=None if standalone is None else _result(standalone),
        aggregate=None if aggregate is None else _result(aggregate),
        published=_result(published),
        gain=None if standalone is None else _gain(published, standalone),
    )


def _result(one: Measured) -> Result:
    of = one.tokens if one.completions else [1] * len(one.right)
    right = sum(one.right)
    return Result(
        accuracy=right / sum(of),
        accuracy_interval=ratio_interval(one.right, of) if one.completions else share_interval(right, len(of)),
        loss=math.fsum(one.losses) / sum(one.tokens),
        loss_interval=mean_interval(one.losses, one.tokens),
    )


def _gain(one: Measured, other: Measured) -> Result:
    """Return by how much the first scores more than the second, which was measured on the same examples."""
    right, losses = (list(map(sub, *both)) for both in ((one.right, other.right), (one.losses, other.losses)))
    of = one.tokens if one.completions else [1] * len(right)
    paired = mean_interval(right, of) if one.completions else paired_interval(right.count(1), right.count(-1), len(of))
    return Result(
        accuracy=sum(right) / sum(of),
        accuracy_interval=paired,
        loss=math.fsum(losses) / sum(one.tokens),
        loss_interval=mean_interval(losses, one.tokens),
    )


# --- in words -------------------------------------------------------------------------------------------------------


class Row(BaseModel):
    """A method and its result, or why there is none."""

    method: str
    what: str
    result: Result | None
    why: str = ""
    model_config = FROZEN


def rows(report: RunReport) -> Sequence[Row]:
    """Return the methods, in the order in which they ask more of others."""
    shown = report.shown
    not_yet = "not measured yet"
    lags = f"{report.standalone_trainings} of {shown.trainings} trainings are done" if shown else not_yet
    return (
        Row(method="Zero-shot", what="the base model", result=report.zero_shot, why=not_yet),
        Row(
            method="Own data only",
            what="trained on this organisation's data alone, as often",
            result=shown and shown.standalone,
            why=lags,
        ),
        Row(
            method="FedAvg",
            what="the mean of the updates, before co-tuning",
            result=shown and shown.aggregate,
            why=not_yet if report.shares_aggregate else "this run does not share it",
        ),
        Row(
            method="FedCoLLM",
            what="the published adapter",
            result=shown and shown.published,
            why=not_yet,
        ),
    )


def verdict(report: RunReport) -> str:
    """Say what the run has brought, as far as the hold-out can tell."""
    shown = report.shown
    if shown is None or shown.gain is None:
        return "There is nothing to compare yet."
    gain, what = shown.gain, "tokens" if report.completions else "answers"
    by = f"{100 * abs(gain.accuracy):.1f} percentage points"
    if gain.accuracy_interval is None or gain.accuracy_interval[0] <= 0 <= gain.accuracy_interval[1]:
        told = "no difference that this hold-out could show" if gain.accuracy_interval else "too few examples to tell"
        return f"After round {shown.round}, against own data only: {told} ({_points(gain)})."
    more = "more" if gain.accuracy > 0 else "fewer"
    return f"After round {shown.round}, {by} {more} {what} are right than with own data only ({_points(gain)})."


def accuracy(result: Result) -> str:
    """Return an accuracy for people."""
    return percent(result.accuracy) + _within(result.accuracy_interval, percent)


def loss(result: Result) -> str:
    """Return a loss for people."""
    return f"{result.loss:.3f}" + _within(result.loss_interval, "{:.3f}".format)


def gains(gain: Result) -> Iterator[str]:
    """Yield a gain in accuracy and in loss, for people."""
    yield f"{100 * gain.accuracy:+.1f} points ({_points(gain)})"
    within = "" if gain.loss_interval is None else " ({:+.3f} to {:+.3f})".format(*gain.loss_interval)
    yield f"{gain.loss:+.3f}{within}"


def _points(gain: Result) -> str:
    if gain.accuracy_interval is None:
        return "no interval"
    low, high = gain.accuracy_interval
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def _within(interval: Interval, shown: Callable[[float], str]) -> str:
    return "" if interval is None else f" ({shown(interval[0])} to {shown(interval[1])})"
