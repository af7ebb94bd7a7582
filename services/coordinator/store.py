"""The coordinator's database: one change is one transaction, and what may be asked of one is in ``transaction``."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy as sa
import structlog

from services.coordinator.blobs import PLACE
from services.coordinator.rows import Rows
from services.coordinator.transaction import Transaction
from shared.errors import DatabaseTooNew, StorageError
from shared.protocol.audit import AuditEntry
from shared.storing import full, read_only

# What these actions' actors do is about themselves.
OF_AGENTS = ("update.", "attempt.refused", "attempt.accused")

log = structlog.get_logger()


if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).with_name("migrations")


class Notify(Protocol):
    """Told of every commit that changed something."""

    def __call__(self, *, for_agents: bool) -> None:
        """``for_agents`` says whether something else may be wanted of agents now."""
        ...


class SqlStore:
    """Transactions on the coordinator's database."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], float], notify: Notify) -> None:
        """``clock`` gives the seconds since 1970; ``notify`` is called after every commit that changed something."""
        self._engine = engine
        self._clock = clock
        self._notify = notify
        # SQLite makes a second writer sleep and look again; threads of one process can hand over at once.
        self._writing = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """One consistent view of the store."""
        with self._engine.begin() as connection:
            yield Transaction(Rows(connection, self._clock))

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """One change of the store: all of it happens, durably, or nothing does.

        Raises:
            StorageFull, StorageReadOnly: the disk takes nothing more.
        """
        with (
            _storing(),
            self._writing,
            self._engine.connect().execution_options(write=True) as connection,
            connection.begin(),
        ):
            rows = Rows(connection, self._clock)
            yield Transaction(rows)
        for entry in rows.audited:
            log.info(entry.action, **_who_and_what(entry))
        if rows.changed:
            self._notify(for_agents=rows.for_agents)

    def close(self) -> None:
        """Close the database's connections."""
        self._engine.dispose()


def open_store(path: Path, clock: Callable[[], float], notify: Notify) -> SqlStore:
    """Open the SQLite database at ``path``, made or migrated to the newest schema.

    Raises:
        DatabaseTooNew: its schema is a newer release's.
    """
    engine = _engine(path)
    version = _version(engine)
    if version is not None and version > newest_version():
        engine.dispose()
        raise DatabaseTooNew(
            f"{path} has a schema of a newer release ({version}), and this release knows those up to "
            f"{newest_version()}: nothing was changed; install the newer release again, or put back the backup that "
            "was made before the upgrade"
        )
    if version != newest_version():
        migrate(engine)
    return SqlStore(engine, clock, notify)


def _engine(path: Path) -> sa.Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)), connect_args={"check_same_thread": False, "timeout": 10}
    )

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own type
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A writer takes its lock at once: a later upgrade could fail in the middle of a transaction.
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def newest_version() -> str:
    """Return the version of the newest schema: migrations are files that are numbered."""
    return max(file.name for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))[:4]


def schema_version(path: Path) -> str | None:
    """Return the version of a database's schema; None if it has none yet. Nothing is migrated."""
    engine = _engine(path)
    try:
        return _version(engine)
    finally:
        engine.dispose()


def _version(engine: sa.Engine) -> str | None:
    """Return the version of the database's schema; None if there is no schema yet."""
    with engine.connect() as connection, connection.begin():
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        version: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        return version


def migrate(engine: sa.Engine) -> None:
    """Bring the database to the newest schema."""
    from alembic import command  # noqa: PLC0415 - 11 MB, which a database that is up to date need not cost

    config = migrations()
    with engine.connect().execution_options(write=True) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def migrations() -> "Config":
    """Return alembic's configuration, but for the connection to use."""
    from alembic.config import Config  # noqa: PLC0415 - as in ``migrate``

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))  # which alembic would expand
    return config


def _who_and_what(entry: AuditEntry) -> dict[str, str | int]:
    """Return what the process's own log says of an audit entry; the details are where whoever reads them is asked."""
    parts = entry.subject.split("/")
    named = dict(zip(parts[::2], parts[1::2], strict=False))
    told: dict[str, str | int] = {"who": entry.actor}
    if "run" in named:
        told["run_id"] = named["run"]
    if "round" in named:
        told["round"] = int(named["round"])
    if "member" in named:
        told["agent"] = named["member"]
    elif entry.action.startswith(OF_AGENTS):
        told["agent"] = entry.actor
    return told


@contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except sa.exc.OperationalError as error:
        raise no_storage(error.orig) or error from error


def no_storage(error: BaseException | None) -> StorageError | None:
    """Return what a fault of SQLite's is called where the disk takes nothing more."""
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL":
        return full(PLACE)
    # A file that is to be made beside the database on a disk that may only be read cannot be opened.
    return read_only(PLACE) if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")) else None
