"""`python -m api.keys create --project default --name ci` prints a new API key, once."""

from __future__ import annotations

import argparse
import sys

from api.auth import create_key
from api.book.database import make_engine, make_sessions
from api.settings import Settings
from training_core.settings import load


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m api.keys", description=__doc__)
    create = parser.add_subparsers(required=True).add_parser("create", help="make a key; one of that name is replaced")
    create.add_argument("--project", default="default")
    create.add_argument("--name", default="default")
    arguments = parser.parse_args()
    engine = make_engine(load(Settings), "keys")
    with make_sessions(engine).begin() as session:
        key = create_key(session, arguments.project, arguments.name)
    sys.stdout.write(key + "\n")
    engine.dispose()


if __name__ == "__main__":
    main()
