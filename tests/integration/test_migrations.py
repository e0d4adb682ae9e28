"""The migrations build the schema that the models describe, can be taken back, and leave what is there as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from psycopg.errors import CheckViolation
from sqlalchemy import create_engine

from api.book.models import Base

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
ENGINE = """
UPDATE jobs SET status = 'paused', reason = 'paused_by_client' WHERE id = 'job_00000002';
UPDATE trials SET status = 'paused', reason = 'paused_by_client' WHERE job_id = 'job_00000002';
INSERT INTO artifacts (id, job_id, trial, attempt, kind, format, path, step, size_bytes, files, sha256, about)
  VALUES ('art_1', 'job_00000002', 0, 1, 'trace', 'chrome_trace', 'a', 1, 1, '{}', '{}', '{}');
INSERT INTO probes (key, device_name, "table") VALUES ('k', 'CPU', '{}');
"""
RULES = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
  WHERE connamespace = 'public'::regnamespace AND conrelid <> 0 AND conrelid::regclass::text <> 'trainyard_version'
UNION SELECT tablename, indexname, indexdef FROM pg_indexes
  WHERE schemaname = 'public' AND tablename <> 'trainyard_version'
"""
FILES = (
    "SELECT pg_relation_filenode('jobs'), pg_relation_filenode('trials'), pg_relation_filenode('attempts'),"
    " pg_relation_filenode('checkpoints')"
)
SEARCH = """
UPDATE jobs SET spec = '{"search": {"trials": 3}}', study = '{}' WHERE id IN ('job_00000002', 'job_00000001');
UPDATE jobs SET spec = '{"search": null}' WHERE id = 'job_00000004';
INSERT INTO trials (job_id, number, status, reason, attempt, losses, finished_at)
  VALUES ('job_00000002', 1, 'pruned', 'pruned', 1, 0, now()),
         ('job_00000002', 2, 'paused', 'rung_reached', 1, 0, NULL),
         ('job_00000001', 1, 'pruned', 'pruned', 1, 0, now());
INSERT INTO rung_values (job_id, trial, rung, attempt, fraction, step, images, "values")
  VALUES ('job_00000002', 2, 0, 1, 0.25, 25, 512, '{"validation/accuracy": 0.5}');
"""
OLD_KEYS = """
INSERT INTO projects (id, name) VALUES ('prj_1', 'default');
INSERT INTO api_keys (id, project_id, name, secret_sha256) VALUES ('key_1', 'prj_1', 'ci', '');
"""
NEW_KEYS = """
INSERT INTO api_keys (id, project_id, name, secret_sha256, scopes, expires_at, revoked_at)
  VALUES ('key_2', 'prj_1', 'read', '', '{jobs:read}', NULL, NULL),
         ('key_3', 'prj_1', 'soon', '', '{admin}', now(), NULL),
         ('key_4', 'prj_1', 'ci', '', '{admin}', NULL, now());
INSERT INTO audit_log (id, project_id, key_id, action, object_id, details)
  VALUES ('aud_1', 'prj_1', 'key_4', 'api_keys.create', 'key_4', '{}');
"""
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


def test_constraints_and_indexes_are_those_of_the_models(empty_database_url: str) -> None:
    """Alembic's own check looks at neither CHECKs nor the conditions of indexes."""
    alembic(empty_database_url, "upgrade", "head")
    with psycopg.connect(empty_database_url.replace("+psycopg", ""), autocommit=True) as connection:
        migrated = set(connection.execute(RULES).fetchall())
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        engine = create_engine(empty_database_url)
        Base.metadata.create_all(engine)
        engine.dispose()
        assert migrated == set(connection.execute(RULES).fetchall())


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
            "UPDATE attempts SET held_seconds = -1",
            "UPDATE jobs SET status = 'paused', pause_requested_at = now() WHERE id = 'job_00000002'",
            "UPDATE jobs SET status = 'paused', finished_at = now() WHERE id = 'job_00000002'",
            "UPDATE jobs SET status = 'resting' WHERE id = 'job_00000002'",
            "UPDATE jobs SET status = 'pruned', finished_at = now() WHERE id = 'job_00000002'",  # a trial alone is
            "UPDATE trials SET status = 'pruned' WHERE job_id = 'job_00000002'",
            "UPDATE trials SET until = 1.5",
            "UPDATE trials SET reached = -0.5",
            "UPDATE attempts SET share = 0",
            "UPDATE attempts SET share = 0.5, devices = 2",
            "INSERT INTO rung_values VALUES ('job_00000002', 0, 0, 1, 0, 25, 512, '{}')",
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


def test_keys_of_before_are_administrators_and_going_back_leaves_those_alone(empty_database_url: str) -> None:
    """The older code takes no notice of scopes or an expiry, so that a key that has them must not reach it."""
    alembic(empty_database_url, "upgrade", "0004")
    with psycopg.connect(empty_database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(OLD_KEYS)
        alembic(empty_database_url, "upgrade", "head")
        assert connection.execute("SELECT id, scopes FROM api_keys").fetchall() == [("key_1", ["admin"])]
        connection.execute(NEW_KEYS)
        for wrong in (
            "UPDATE api_keys SET scopes = '{everything}'",
            "UPDATE api_keys SET scopes = '{}'",
            "UPDATE api_keys SET replaced_by = id WHERE id = 'key_1'",  # it would never end
        ):
            with pytest.raises(CheckViolation):
                connection.execute(wrong)
        alembic(empty_database_url, "downgrade", "0004")
        assert connection.execute("SELECT id FROM api_keys").fetchall() == [("key_1",)]


def test_going_back_puts_what_is_paused_into_the_queue_again(empty_database_url: str) -> None:
    alembic(empty_database_url, "upgrade", "0001")
    with psycopg.connect(empty_database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(FILLED)
        alembic(empty_database_url, "upgrade", "head")
        connection.execute(ENGINE)
        alembic(empty_database_url, "downgrade", "0002")
        query = "SELECT j.status, t.status FROM jobs j JOIN trials t ON t.job_id = j.id WHERE j.id = 'job_00000002'"
        assert one(connection, query) == ("queued", "queued")
        with pytest.raises(CheckViolation):
            connection.execute("UPDATE jobs SET status = 'paused' WHERE id = 'job_00000002'")
        alembic(empty_database_url, "upgrade", "head")
        assert one(connection, "SELECT count(*) FROM jobs") == (2000,)


def test_going_back_ends_the_searches_that_the_older_code_cannot_train(empty_database_url: str) -> None:
    alembic(empty_database_url, "upgrade", "0001")
    with psycopg.connect(empty_database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(FILLED)
        alembic(empty_database_url, "upgrade", "head")
        connection.execute(SEARCH)
        alembic(empty_database_url, "downgrade", "0003")
        query = "SELECT status FROM jobs WHERE id <= 'job_00000004' ORDER BY id"
        assert connection.execute(query).fetchall() == [("succeeded",), ("cancelled",), ("succeeded",), ("running",)]
        query = "SELECT status FROM trials WHERE job_id = 'job_00000002' ORDER BY number"
        assert connection.execute(query).fetchall() == [("cancelled",)] * 3
        with pytest.raises(CheckViolation, match="stays so"):
            connection.execute("UPDATE trials SET status = 'succeeded' WHERE job_id = 'job_00000002'")
        left = "SELECT count(*) FROM attempts WHERE finished_at IS NULL"
        assert one(connection, left) == (999,)
