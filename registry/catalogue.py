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
from typing import TypeVar

import psycopg.errors
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.orm import DeclarativeBase, Session

from infra.errors import DiskFullError, StackError

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
        StackError: If it names none.
    """
    url = os.environ.get("MODELYARD_DATABASE_URL")
    if not url:
        raise StackError("No catalogue is known.", "Start the stack: modelyard up --detach.")
    return _engine(url)


def patiently(do: Callable[[], T]) -> T:
    """Do what may be done twice, again and again while the database is started anew.

    It is waited for a minute; after that nobody waits again until it has answered.

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
            if engine().dialect.name == "sqlite":
                raise
            if time.monotonic() > deadline:
                _given_up.set()
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            _given_up.clear()
            return done


@contextlib.contextmanager
def alone(subject: str) -> Iterator[None]:
    """Be the only one, among all processes of the catalogue, who is inside for ``subject``.

    For the few steps elsewhere, as in MLflow, that must not be mixed with somebody else's. It
    ends with the process, however that ends. On another database than PostgreSQL nobody waits.
    """
    with engine().begin() as connection:
        if connection.dialect.name == "postgresql":
            lock = sqlalchemy.text("SELECT pg_advisory_xact_lock(hashtextextended(:subject, 0))")
            connection.execute(lock, {"subject": subject})
        yield


def session() -> Session:
    """A new session; use it as a context manager, and never across a network call."""
    return Session(engine())


def configuration() -> Config:
    """Alembic's configuration."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def migrate() -> None:
    """Bring the schema up to date; safe from several processes at once."""
    config = configuration()
    head = ScriptDirectory.from_config(config).get_current_head()
    with engine().begin() as connection:
        if MigrationContext.configure(connection).get_current_revision() == head:
            return
        if connection.dialect.name == "postgresql":
            connection.execute(sqlalchemy.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
