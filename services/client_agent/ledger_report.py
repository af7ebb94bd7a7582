"""What the ledger says, for people: totals by kind, and entries with those that only repeat the one before folded."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from pydantic import AwareDatetime, BaseModel

from services.client_agent.egress_ledger import NOTHING_BEFORE, Entry, Fault, last_digest, months, read
from services.client_agent.what_leaves import KINDS, in_words, parts_of
from shared.protocol.terms import FROZEN

PAGE_ROWS = 50
NO_RULE = "none needed: it carries nothing of the data"

KIND_BY_NAME = {kind.name: kind for kind in KINDS}


class KindTotal(BaseModel):
    """All requests of one kind under one rule."""

    kind: str
    what: str
    rule: str
    requests: int
    head_bytes: int
    body_bytes: int
    readable: bool
    model_config = FROZEN


class DayTotal(BaseModel):
    """All requests of one day, in UTC."""

    day: str
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
    days: tuple[DayTotal, ...]
    to: dict[str, int]
    whole: bool
    seal: str
    faults: tuple[str, ...]
    model_config = FROZEN


class Row(BaseModel):
    """An entry in words, and how many times in a row such a request was sent, until when.

    ``readable`` is an update that the coordinator can read alone.
    """

    what: str
    rule: str
    readable: bool
    times: int
    until: AwareDatetime
    entry: Entry
    model_config = FROZEN


class Page(BaseModel):
    """A month of the ledger, and one page of its rows: all, or those of a day or a kind.

    ``months`` has all that there are, ``summary`` is the whole month's, and ``requests`` of them are in the rows of
    all pages.
    """

    month: str | None
    months: tuple[str, ...]
    day: str | None
    kind: str | None
    page: int
    pages: int
    requests: int
    summary: Summary
    rows: tuple[Row, ...]
    model_config = FROZEN


@dataclass
class Total:
    """How many requests, and how large together."""

    requests: int = 0
    head_bytes: int = 0
    body_bytes: int = 0

    def add(self, times: int, head_bytes: int, body_bytes: int) -> None:
        """Add requests of one size."""
        self.requests += times
        self.head_bytes += times * head_bytes
        self.body_bytes += times * body_bytes


@dataclass
class Tally:
    """Adds up what passes by; ``alike`` counts requests by day, kind, rule, address and sizes."""

    only: str = ""
    first: datetime | None = None
    last: datetime | None = None
    others: int = 0
    alike: Counter[tuple[str, str, str | None, str, int, int]] = field(default_factory=Counter)
    whole: bool = True
    seal: str = NOTHING_BEFORE
    faults: list[str] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        """Add an entry."""
        self.first = self.first or entry.at
        self.last = entry.at
        self.alike[day_of(entry), entry.kind, entry.rule, entry.to, entry.head_bytes, entry.body_bytes] += 1

    def summary(self) -> Summary:
        """Return what there was so far, the kind with the largest bodies first."""
        everything, by_kind, by_day = (
            Total(),
            defaultdict[tuple[str, str | None], Total](Total),
            defaultdict[str, Total](Total),
        )
        to = Counter[str]()
        for (day, name, rule, address, head_bytes, body_bytes), times in self.alike.items():
            for total in (everything, by_kind[name, rule], by_day[day]):
                total.add(times, head_bytes, body_bytes)
            to[address] += times
        kinds = [
            KindTotal(
                kind=name,
                what=KIND_BY_NAME[name].words if name in KIND_BY_NAME else name,
                rule=rule or NO_RULE,
                readable=is_readable(name),
                **asdict(total),
            )
            for (name, rule), total in by_kind.items()
        ]
        return Summary(
            only=self.only,
            first=self.first,
            last=self.last,
            others=self.others,
            **asdict(everything),
            kinds=tuple(sorted(kinds, key=lambda kind: (-kind.body_bytes, -kind.requests))),
            days=tuple(DayTotal(day=day, **asdict(total)) for day, total in sorted(by_day.items())),
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


def day_of(entry: Entry) -> str:
    """Return the day of an entry, in UTC."""
    return entry.at.astimezone(UTC).date().isoformat()


def is_readable(kind: str) -> bool:
    """Return whether requests of a kind carry what came of the private data, and is not masked."""
    return kind in KIND_BY_NAME and KIND_BY_NAME[kind].readable


def folded(entries: Iterable[Entry]) -> Iterator[Row]:
    """Yield a row for each entry, or one for several in a row that differ in their time alone."""
    return (row(first, times=times, until=until) for first, times, until in _repeated(entries))


def _repeated(entries: Iterable[Entry]) -> Iterator[tuple[Entry, int, datetime]]:
    """Yield an entry with how many times in a row such a request was sent, and until when."""
    for _, alike in groupby(entries, _all_but_the_time):
        first = last = next(alike)
        times = 1
        for times, last in enumerate(alike, 2):  # noqa: B007 - the last ones count
            pass
        yield first, times, last.at


def row(entry: Entry, *, times: int = 1, until: datetime | None = None) -> Row:
    """Return an entry in words."""
    kind = KIND_BY_NAME.get(entry.kind)
    what = in_words(kind, entry.target) if kind else entry.kind
    return Row(
        what=what,
        rule=entry.rule or NO_RULE,
        readable=is_readable(entry.kind),
        times=times,
        until=until or entry.at,
        entry=entry,
    )


def in_utc(at: datetime) -> str:
    """Return a time for people, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def page_of(
    folder: Path, *, month: str | None = None, day: str | None = None, kind: str | None = None, page: int | None = None
) -> Page:
    """Return a page of a month: of the day's, else of the newest, and its last, where none is named."""
    there = tuple(file.stem for file in months(folder))
    month = day[:7] if day else month or next(reversed(there), None)
    tally, kept, number, requests = Tally(), list[tuple[Entry, int, datetime]](), 1, 0
    entries = selected(folder, tally, month=month)
    chosen = (each for each in entries if _is_of(each, day, kind))
    for index, (first, times, until) in enumerate(_repeated(chosen)):
        number = index // PAGE_ROWS + 1
        requests += times
        if page is None and index % PAGE_ROWS == 0:
            kept.clear()
        if page in {None, number}:
            kept.append((first, times, until))
    return Page(
        month=month,
        months=there,
        day=day,
        kind=kind,
        page=page or number,
        pages=number,
        requests=requests,
        summary=tally.summary(),
        rows=tuple(row(first, times=times, until=until) for first, times, until in kept),
    )


def _is_of(entry: Entry, day: str | None, kind: str | None) -> bool:
    return (day is None or day == day_of(entry)) and kind in {None, entry.kind}


def _all_but_the_time(entry: Entry) -> tuple[object, ...]:
    sizes = (entry.head_bytes, entry.body_bytes, entry.digest)
    return (entry.to, entry.method, entry.target, entry.kind, entry.rule, *sizes)
