"""`python -m api.secrets new-key` prints a key; `reseal` seals all secrets anew under the first of the keys."""

from __future__ import annotations

import argparse
import sys

from api.book import secrets
from api.book.database import make_engine, make_sessions
from api.settings import Settings
from training_core.contract.sealing import new_key, sealer_of
from training_core.contract.settings import load


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m api.secrets", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("new-key", help="print a key for TRAINYARD_SECRETS_KEY")
    commands.add_parser("reseal", help="after a new first key: seal what the others have sealed, in one transaction")
    if parser.parse_args().command == "new-key":
        sys.stdout.write(new_key() + "\n")
    else:
        reseal()


def reseal() -> None:
    """Exit code 1 when some cannot be opened by any of the keys; those stay as they are."""
    settings = load(Settings)
    sealer = sealer_of(settings.secrets_key.get_secret_value())
    if sealer is None:
        raise SystemExit("TRAINYARD_SECRETS_KEY: it must be set")
    engine = make_engine(settings, "secrets")
    with make_sessions(engine).begin() as session:
        sealed, lost = secrets.seal_again(session, sealer)
    engine.dispose()
    sys.stdout.write(f"{sealed} sealed anew\n")
    if lost:
        names = "\n".join(f"  {name} of {project_id}" for project_id, name in lost)
        raise SystemExit(f"{len(lost)} open with none of the keys; PUT them again or delete them:\n{names}")


if __name__ == "__main__":
    main()
