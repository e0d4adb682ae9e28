"""The migrations build the schema that the models describe, and can be taken back."""

from __future__ import annotations

import os
import subprocess
import sys


def alembic(url: str, *arguments: str) -> None:
    environment = {**os.environ, "TRAINYARD_DATABASE_URL": url}
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_up_equals_the_models_and_down_leaves_nothing(empty_database_url: str) -> None:
    alembic(empty_database_url, "upgrade", "head")
    alembic(empty_database_url, "check")
    alembic(empty_database_url, "downgrade", "base")
    alembic(empty_database_url, "upgrade", "head")
