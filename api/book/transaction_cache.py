"""What holds for the whole of a transaction, remembered for that long: a lock that is held, the time, a bell rung."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

_NAME = "once"


def facts(session: Session) -> dict[object, Any]:
    """Those of the transaction that the session is in, empty at its beginning; forgotten with it.

    Within a savepoint they are the savepoint's own: what is undone with it was not so.
    """
    transaction = session.get_nested_transaction() or session.get_transaction()
    known = session.info.get(_NAME)
    if transaction is None or known is None or known[0] is not transaction:
        known = session.info[_NAME] = (transaction, {})
    found: dict[object, Any] = known[1]
    return found
