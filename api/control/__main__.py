"""`python -m api.control`: leads when it can, waits when another leads, ends cleanly on SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import signal
import threading

from api import production
from api.book.database import make_engine, make_sessions
from api.control.broker import Postman, make_redis
from api.control.cleaner import Cleaner
from api.control.dispatcher import Dispatcher
from api.control.janitor import Janitor
from api.control.leader import Loop, lead
from api.control.recorder import Recorder
from api.control.sweeper import Sweeper
from api.control.tuner import Tuner
from api.profiles import Profiles
from api.settings import Settings
from training_core.contract.redaction import redact_logs
from training_core.contract.settings import load


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s %(message)s")
    redact_logs()
    settings = load(Settings)
    production.check(settings, with_redis=True)
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    engine = make_engine(settings, "control")
    sessions = make_sessions(engine)
    profiles = Profiles.load(settings.profiles_file)
    postman = Postman(settings)
    loops: dict[str, Loop] = {
        "recorder": Recorder(sessions, make_redis(settings), settings.losses_limit),
        "dispatcher": Dispatcher(sessions, make_redis(settings), postman, profiles, settings),
        "tuner": Tuner(sessions, profiles, settings),
        "janitor": Janitor(sessions, make_redis(settings), settings),
        "sweeper": Sweeper(sessions, settings),
        "cleaner": Cleaner(sessions, settings),
    }
    lead(engine, loops, stop)
    postman.close()


if __name__ == "__main__":
    main()
