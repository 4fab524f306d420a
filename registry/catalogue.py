"""The catalogue: the database of what neither Prefect nor MLflow knows.

One module per noun holds its rows and its verbs; this one holds the connection and brings the
schema up to date. Migrations are in ``registry/migrations``.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psycopg.errors
import sqlalchemy
from sqlalchemy.orm import DeclarativeBase, Session

from infra.errors import DiskFullError, StackError

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATIONS = Path(__file__).with_name("migrations")
_LOCK = 7_302_114_553_001  # any number that nobody else locks
_PATIENCE_SECONDS = 60.0
_RETRY_SECONDS = 0.2

_given_up = threading.Event()  # since the database was last waited for in vain

T = TypeVar("T")


class Base(DeclarativeBase):
    """Root of every row class; row classes end in ``Model``."""


@functools.lru_cache(maxsize=4)
def _engine(url: str) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine(url, pool_pre_ping=True, pool_size=2)


def engine() -> sqlalchemy.Engine:
    """The engine of the database that ``MODELYARD_DATABASE_URL`` names.

    Raises:
        StackError: If it names none, or with the code ``DatabaseUnsupported`` one that is not
            PostgreSQL.
    """
    url = os.environ.get("MODELYARD_DATABASE_URL")
    if not url:
        raise StackError(
            "No catalogue database is configured.", "Start the stack: modelyard up --detach."
        )
    if not url.startswith("postgresql"):
        raise StackError(
            "MODELYARD_DATABASE_URL does not name a PostgreSQL database.",
            "Set it to postgresql+psycopg://USER:PASSWORD@HOST/DATABASE.",
            code="DatabaseUnsupported",
        )
    return _engine(url)


def retry_transient(do: Callable[[], T]) -> T:
    """Retry an idempotent call for a minute while the database restarts.

    After a call has failed for that long, the next ones fail at once until one succeeds.

    Raises:
        DiskFullError: If the database has no room.
        sqlalchemy.exc.OperationalError: If it cannot be reached for longer.
    """
    deadline = time.monotonic() + (0 if _given_up.is_set() else _PATIENCE_SECONDS)
    while True:
        try:
            done = do()
        except sqlalchemy.exc.OperationalError as error:
            if isinstance(error.orig, psycopg.errors.DiskFull):
                raise DiskFullError(
                    "The database's disk is full.", "Make room on it, and retry."
                ) from error
            if time.monotonic() > deadline:
                _given_up.set()
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            _given_up.clear()
            return done


@contextlib.contextmanager
def advisory_lock(subject: str) -> Iterator[None]:
    """Hold the lock of ``subject`` among all processes that use the catalogue.

    It protects a sequence of calls to other services, such as MLflow. The database releases it
    when the holding process ends.
    """
    with engine().begin() as connection:
        lock = sqlalchemy.text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 0))")
        connection.execute(lock, {"subject": subject})
        yield


def session() -> Session:
    """A new session; use it as a context manager, and never across a network call."""
    return Session(engine())


def configuration() -> Config:
    """Alembic's configuration."""
    from alembic.config import Config  # noqa: PLC0415 (who reads and writes rows needs none)

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def migrate() -> None:
    """Bring the schema up to date; safe from several processes at once."""
    from alembic import command  # noqa: PLC0415
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = configuration()
    head = ScriptDirectory.from_config(config).get_current_head()
    with engine().begin() as connection:
        if MigrationContext.configure(connection).get_current_revision() == head:
            return
        connection.execute(sqlalchemy.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
