"""The Flask extensions, made once and bound to an application in ``create_app``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask_jwt_extended import JWTManager
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import MetaData, event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    # Constraints get names, so that a later migration can change them on SQLite too.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


db = SQLAlchemy(model_class=Base)
migrate = Migrate()
jwt = JWTManager()
limiter = Limiter(key_func=get_remote_address)

if TYPE_CHECKING:
    Model = Base
else:
    Model = db.Model


@event.listens_for(Engine, "connect")
def _prepare_sqlite(connection: Any, record: Any) -> None:
    """Make SQLite fit for several processes: a log beside the file, waiting, foreign keys."""
    if connection.__class__.__module__.partition(".")[0] != "sqlite3":
        return
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


@event.listens_for(Engine, "handle_error")
def _tell_what_is_lost(context: ExceptionContext) -> None:
    """Let a connection that is lost always be an OperationalError, of which all tries again.

    psycopg calls it an InternalError where PostgreSQL ended it for its transaction's idleness.
    """
    if context.is_disconnect and not isinstance(context.sqlalchemy_exception, OperationalError):
        statement, parameters = context.statement or "", context.parameters
        lost = context.original_exception
        raise OperationalError(statement, parameters, lost, connection_invalidated=True)
