"""What the ledger says, for people: totals by kind, and entries with those that only repeat the one before folded."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

from pydantic import AwareDatetime, BaseModel

from services.client_agent.egress_ledger import NOTHING_BEFORE, Entry, Fault, last_digest, months, read
from services.client_agent.what_leaves import KINDS, in_words, parts_of
from shared.protocol.terms import FROZEN

PAGE_ROWS = 200
NO_RULE = "none needed: it carries nothing of the data"

# By kind and rule.
Totals: TypeAlias = Counter[tuple[str, str | None]]

KIND_BY_NAME = {kind.name: kind for kind in KINDS}


class KindTotal(BaseModel):
    """All requests of one kind under one rule."""

    kind: str
    what: str
    rule: str
    requests: int
    head_bytes: int
    body_bytes: int
    model_config = FROZEN


class Summary(BaseModel):
    """What a selection of entries comes to; ``faults`` says where the ledger is not what was written.

    ``only`` is what was selected, in words, and nothing where all is; ``others`` counts what was not.
    ``whole`` is False where files of earlier months are not there any more. ``seal`` is the SHA-256 of the last line
    that was read: a later ledger that has it in an entry's ``previous`` has all that was before as it was then.
    """

    only: str
    first: AwareDatetime | None
    last: AwareDatetime | None
    requests: int
    others: int
    head_bytes: int
    body_bytes: int
    kinds: tuple[KindTotal, ...]
    to: dict[str, int]
    whole: bool
    seal: str
    faults: tuple[str, ...]
    model_config = FROZEN


class Row(BaseModel):
    """An entry in words, and how many times in a row such a request was sent, until when."""

    what: str
    rule: str
    times: int
    until: AwareDatetime
    entry: Entry
    model_config = FROZEN


class Page(BaseModel):
    """A month of the ledger, and one page of its rows; ``months`` has all that there are."""

    month: str | None
    months: tuple[str, ...]
    page: int
    pages: int
    summary: Summary
    rows: tuple[Row, ...]
    model_config = FROZEN


@dataclass
class Tally:
    """Adds up what passes by; ``alike`` counts requests by kind, rule, address and sizes."""

    only: str = ""
    first: datetime | None = None
    last: datetime | None = None
    others: int = 0
    alike: Counter[tuple[str, str | None, str, int, int]] = field(default_factory=Counter)
    whole: bool = True
    seal: str = NOTHING_BEFORE
    faults: list[str] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        """Add an entry."""
        self.first = self.first or entry.at
        self.last = entry.at
        self.alike[entry.kind, entry.rule, entry.to, entry.head_bytes, entry.body_bytes] += 1

    def summary(self) -> Summary:
        """Return what there was so far, the kind with the largest bodies first."""
        requests, heads, bodies = Totals(), Totals(), Totals()
        to = Counter[str]()
        for (name, rule, address, head_bytes, body_bytes), times in self.alike.items():
            requests[name, rule] += times
            heads[name, rule] += times * head_bytes
            bodies[name, rule] += times * body_bytes
            to[address] += times
        kinds = [
            KindTotal(
                kind=name,
                what=KIND_BY_NAME[name].words if name in KIND_BY_NAME else name,
                rule=rule or NO_RULE,
                requests=times,
                head_bytes=heads[name, rule],
                body_bytes=bodies[name, rule],
            )
            for (name, rule), times in requests.items()
        ]
        return Summary(
            only=self.only,
            first=self.first,
            last=self.last,
            requests=requests.total(),
            others=self.others,
            head_bytes=heads.total(),
            body_bytes=bodies.total(),
            kinds=tuple(sorted(kinds, key=lambda kind: (-kind.body_bytes, -kind.requests))),
            to=dict(to),
            whole=self.whole,
            seal=self.seal,
            faults=tuple(self.faults),
        )


def selected(
    folder: Path, tally: Tally, *, since: datetime | None = None, month: str | None = None, run: str | None = None
) -> Iterator[Entry]:
    """Yield the entries from a time on, of a month, or of a run; ``tally`` has added them up when the last has come."""
    parts = (
        f"of run {run}" if run else "",
        f"since {in_utc(since)} UTC" if since else "",
        f"of {month}" if month else "",
    )
    tally.only = " ".join(filter(None, parts))
    files = months(folder)
    oldest = month or (f"{since.astimezone(UTC):%Y-%m}" if since else "")
    chosen = [file for file in files if file.stem >= oldest and month in {None, file.stem}]
    earlier = [file for file in files if file.stem < oldest]
    begins = not earlier
    for line in read(chosen, before=last_digest(earlier) if earlier else None):
        if isinstance(line, Fault):
            tally.faults.append(f"{line.where} {line.what}")
            continue
        if begins:
            tally.whole, begins = line.previous == NOTHING_BEFORE, False
        if (since is None or line.at >= since) and (run is None or run == run_of(line)):
            tally.add(line)
            yield line
        else:
            tally.others += 1
    tally.seal = last_digest(chosen)


def nothing(summary: Summary) -> str:
    """Say that a selection is empty, and of what."""
    if not summary.only:
        return "The ledger is empty: nothing has left this machine"
    others = f"; {summary.others:,} others are" if summary.others else ""
    return f"No request {summary.only} is in the ledger{others}"


def run_of(entry: Entry) -> str | None:
    """Return the run that a request was for, if it names one."""
    kind = KIND_BY_NAME.get(entry.kind)
    return parts_of(kind, entry.target).get("run") if kind else None


def folded(entries: Iterable[Entry]) -> Iterator[Row]:
    """Yield a row for each entry, or one for several in a row that differ in their time alone."""
    for _, alike in groupby(entries, _all_but_the_time):
        first = last = next(alike)
        times = 1
        for times, last in enumerate(alike, 2):  # noqa: B007 - the last ones count
            pass
        yield row(first, times=times, until=last.at)


def row(entry: Entry, *, times: int = 1, until: datetime | None = None) -> Row:
    """Return an entry in words."""
    kind = KIND_BY_NAME.get(entry.kind)
    what = in_words(kind, entry.target) if kind else entry.kind
    return Row(what=what, rule=entry.rule or NO_RULE, times=times, until=until or entry.at, entry=entry)


def in_utc(at: datetime) -> str:
    """Return a time for people, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def page_of(folder: Path, *, month: str | None, page: int | None) -> Page:
    """Return a page of a month: of the newest, and its last, where none is named."""
    there = tuple(file.stem for file in months(folder))
    month = month or there[-1] if there else None
    tally, rows, number = Tally(), list[Row](), 1
    for index, row in enumerate(folded(selected(folder, tally, month=month))):
        number = index // PAGE_ROWS + 1
        if page is None and index % PAGE_ROWS == 0:
            rows.clear()
        if page in {None, number}:
            rows.append(row)
    return Page(month=month, months=there, page=page or number, pages=number, summary=tally.summary(), rows=tuple(rows))


def _all_but_the_time(entry: Entry) -> tuple[object, ...]:
    sizes = (entry.head_bytes, entry.body_bytes, entry.digest)
    return (entry.to, entry.method, entry.target, entry.kind, entry.rule, *sizes)
