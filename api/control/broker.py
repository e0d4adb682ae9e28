"""Redis and Celery as the control plane uses them: bounded waits, no retries inside the client, no result backend."""

from __future__ import annotations

import redis
from celery import Celery

from api.settings import Settings
from training_core.contract.messages import TASK_RUN_ATTEMPT, Ticket, host_queue

SOCKET_SECONDS = 2.0


def make_redis(settings: Settings) -> redis.Redis:
    """A client whose calls fail within seconds when Redis is gone or frozen."""
    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=SOCKET_SECONDS + 1.0,  # longer than any blocking read we make
        socket_connect_timeout=SOCKET_SECONDS,
        decode_responses=False,
    )


class Postman:
    """Sends tickets. A ticket that cannot be sent now is sent again by the dispatcher; nothing is kept here."""

    def __init__(self, settings: Settings) -> None:
        url = settings.redis_url.get_secret_value()
        self._celery = Celery("trainyard-control", broker=url, set_as_current=False)
        self._celery.conf.update(
            task_serializer="json",
            accept_content=["json"],
            task_ignore_result=True,
            broker_connection_timeout=SOCKET_SECONDS,
            broker_transport_options={
                "socket_timeout": SOCKET_SECONDS,
                "socket_connect_timeout": SOCKET_SECONDS,
                "max_retries": 0,
                "retry_on_timeout": False,
            },
        )

    def send(self, ticket: Ticket, worker: str) -> None:
        """Raises `kombu.exceptions.OperationalError` when the broker does not take the message."""
        self._celery.send_task(
            TASK_RUN_ATTEMPT,
            args=[ticket.model_dump(mode="json")],
            queue=host_queue(worker),
            task_id=ticket.attempt_id,
            retry=False,
        )

    def close(self) -> None:
        self._celery.close()
