"""`python -m api`: answers HTTP until SIGTERM or SIGINT."""

from __future__ import annotations

from api.app import create_app
from api.server import allow_open_files, make_server
from api.settings import Settings
from training_core.contract.settings import load


def main() -> None:
    settings = load(Settings)
    allow_open_files(settings.connections)
    make_server(create_app(settings), settings).run()


if __name__ == "__main__":
    main()
