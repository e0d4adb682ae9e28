"""The migrations build the schema that the models describe, can be taken back, and leave what is there as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from psycopg.errors import CheckViolation

FILLED = """
INSERT INTO projects (id, name) VALUES ('prj_1', 'default');
INSERT INTO jobs (id, project_id, spec, spec_version, priority, labels, client_metadata, status, reason, version,
                  last_event_seq, finished_at, data_ready_at)
  SELECT 'job_' || lpad(n::text, 8, '0'), 'prj_1', '{"task": "image-classification"}', 1, 0, '{}', '{}',
         CASE WHEN n % 2 = 0 THEN 'running' ELSE 'succeeded' END, 'training', 1, 0,
         CASE WHEN n % 2 = 0 THEN NULL ELSE now() END, now()
  FROM generate_series(1, 2000) AS n;
INSERT INTO trials (job_id, number, status, reason, attempt, losses, finished_at)
  SELECT id, 0, status, reason, 1, 0, finished_at FROM jobs;
INSERT INTO attempts (id, job_id, trial, number, worker, incarnation, device, devices, last_seq, made_progress)
  SELECT 'att_' || id, id, 0, 1, 'host-a', 'one', 'cpu', 1, 0, false FROM jobs WHERE status = 'running';
"""
FILES = "SELECT pg_relation_filenode('jobs'), pg_relation_filenode('attempts')"
CHECK = """
INSERT INTO jobs (id, project_id, work, spec, spec_version, priority, labels, client_metadata, status, reason, version,
                  last_event_seq)
  VALUES ('chk_1', 'prj_1', 'check', '{}', 1, 0, '{}', '{}', 'queued', 'submitted', 1, 1);
INSERT INTO trials (job_id, number, status, reason, attempt, losses) VALUES ('chk_1', 0, 'queued', 'submitted', 0, 0);
INSERT INTO events (job_id, seq, type, level, message, data) VALUES ('chk_1', 1, 'job.created', 'info', '', '{}');
INSERT INTO idempotency_keys (project_id, key, request_sha256, job_id) VALUES ('prj_1', 'k', '', 'chk_1');
"""


def alembic(url: str, *arguments: str) -> None:
    environment = {**os.environ, "TRAINYARD_DATABASE_URL": url}
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def one(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row


def test_up_equals_the_models_and_down_leaves_nothing(empty_database_url: str) -> None:
    alembic(empty_database_url, "upgrade", "head")
    alembic(empty_database_url, "check")
    alembic(empty_database_url, "downgrade", "base")
    alembic(empty_database_url, "upgrade", "head")


def test_a_filled_database_is_expanded_and_not_rewritten(empty_database_url: str) -> None:
    alembic(empty_database_url, "upgrade", "0001")
    with psycopg.connect(empty_database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(FILLED)
        files = one(connection, FILES)
        alembic(empty_database_url, "upgrade", "head")
        assert one(connection, FILES) == files  # a rewritten table lies in a new file
        assert one(connection, "SELECT count(*) FROM jobs WHERE work = 'train' AND data_report IS NULL") == (2000,)
        assert one(connection, "SELECT count(*) FROM pg_constraint WHERE NOT convalidated") == (0,)
        for wrong in (
            "UPDATE jobs SET work = 'play' WHERE id = 'job_00000002'",
            "UPDATE jobs SET work = 'check' WHERE id = 'job_00000002'",  # it is running
            "UPDATE attempts SET devices = -1",
        ):
            with pytest.raises(CheckViolation):
                connection.execute(wrong)


def test_going_back_takes_the_checks_along_and_leaves_the_jobs(empty_database_url: str) -> None:
    alembic(empty_database_url, "upgrade", "0001")
    with psycopg.connect(empty_database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(FILLED)
        alembic(empty_database_url, "upgrade", "head")
        connection.execute(CHECK)
        alembic(empty_database_url, "downgrade", "0001")
        assert one(connection, "SELECT count(*), min(id) FROM jobs") == (2000, "job_00000001")
        assert one(connection, "SELECT count(*) FROM events") == (0,)
