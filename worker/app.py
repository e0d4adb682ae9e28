"""The Celery application of one host: early acknowledgement, no results, JSON alone, its own queue alone.

A message is a ticket: it may be lost, late or repeated. So nothing of Celery's own delivery promises is relied on.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery
from pydantic import ValidationError

from training_core.contract.messages import TASK_RUN_ATTEMPT, Ticket
from worker.host import Host
from worker.runner import run_attempt

log = logging.getLogger("trainyard.worker")


def make_app(host: Host) -> Celery:
    """An application whose one task runs an attempt on `host`."""
    app = Celery("trainyard-worker", broker=host.settings.redis_url.get_secret_value(), set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"socket_timeout": 10, "socket_connect_timeout": 2, "socket_keepalive": True},
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )

    @app.task(name=TASK_RUN_ATTEMPT)  # type: ignore[untyped-decorator]
    def run(message: dict[str, Any]) -> None:
        try:
            ticket = Ticket.model_validate(message)
        except ValidationError as error:
            log.error("dropped a ticket that cannot be read: %d faults", error.error_count())
            return
        run_attempt(host, ticket)

    return app
