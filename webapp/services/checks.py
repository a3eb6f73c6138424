"""How far looks at data sets are, for the pages that wait for them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from webapp.extensions import db
from webapp.models import DatasetCheck, User
from webapp.models.columns import utc_now
from webapp.services.errors import Conflict, Invalid, NotFound
from webapp.services.statements import affected

logger = logging.getLogger(__name__)

KEPT = timedelta(days=1)
_TOLD_EVERY_SECONDS = 0.3


class Phase(StrEnum):
    RECEIVING = "receiving"  # bytes
    UNPACKING = "unpacking"  # bytes
    CHECKING = "checking"  # images
    DONE = "done"


class Check:
    """Writes how far one look is, a few times a second; without an id it tells nobody.

    In transactions of its own, so that what the request has under way is left alone.
    """

    def __init__(
        self, check_id: str | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._id = check_id
        self._clock = clock
        self._phase = Phase.RECEIVING
        self._told = 0.0

    def begin(self, phase: Phase) -> None:
        """Enter a phase. Raises Conflict where the person who waits gave the look up."""
        if self._id is not None:
            self._phase = phase
        self._write(done=0, total=None)

    def __call__(self, done: int, total: int | None) -> None:
        """Tell how far the phase is. Raises as begin() does."""
        if self._clock() - self._told >= _TOLD_EVERY_SECONDS:
            self._write(done=done, total=total)

    def end(self) -> None:
        """Say that there is nothing more to wait for; raises nothing."""
        try:
            self.begin(Phase.DONE)
        except Conflict:
            logger.debug("check %s ended after it was given up", self._id)

    def _write(self, *, done: int, total: int | None) -> None:
        if self._id is None:
            return
        self._told = self._clock()
        statement = (
            update(DatasetCheck)
            .where(DatasetCheck.id == self._id)
            .values(phase=str(self._phase), done=done, total=total, updated_at=utc_now())
        )
        try:
            with Session(db.engine) as session, session.begin():
                found = affected(statement, session=session)
        except OperationalError as error:
            # The work itself goes on; if the database stays away, it says so at its end.
            logger.warning("how far check %s is could not be written", self._id, exc_info=error)
            return
        if not found:
            raise Conflict("It was given up")


NOBODY_WAITS = Check(None)


def start(check_id: str | None, *, user: User, phase: Phase) -> Check:
    """Return what tells of a look by the id that a client chose. Raises Invalid: it is taken."""
    check = Check(check_id)
    if check_id is None:
        return check
    db.session.execute(delete(DatasetCheck).where(DatasetCheck.updated_at < utc_now() - KEPT))
    db.session.add(DatasetCheck(id=check_id, user_id=user.id, phase=str(phase)))
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        raise Invalid({"check_id": ["This id is taken; choose a new UUID"]}) from None
    return check


def find(check_id: str, *, user: User) -> DatasetCheck:
    """Return a check that a person began. Raises NotFound for anybody else's."""
    check = db.session.get(DatasetCheck, check_id)
    if check is None or check.user_id != user.id:
        raise NotFound(f"There is no check {check_id}")
    return check


def give_up(check_id: str, *, user: User) -> None:
    """End a look at its next word; what it made is removed. Raises NotFound."""
    db.session.delete(find(check_id, user=user))
    db.session.commit()
