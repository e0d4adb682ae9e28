"""Pausing, budgets, the efficiency account, artifacts, pins, and what short measurements found on a device.

Every step only adds, as in 0002. A CHECK that allows more takes the place of one that allows less, within one
transaction, so that no row is ever unchecked; it is validated in a transaction of its own.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
JSON = postgresql.JSONB(astext_type=sa.Text())
STATUSES = "'queued', 'preparing', 'running', 'paused', 'succeeded', 'failed', 'cancelled'"
OPEN = "'queued', 'preparing', 'running', 'paused'"
OLD_STATUSES, OLD_OPEN = STATUSES.replace(" 'paused',", ""), OPEN.replace(", 'paused'", "")

WIDER = {
    ("jobs", "ck_jobs_status_known"): ("status IN ({})", STATUSES, OLD_STATUSES),
    ("jobs", "ck_jobs_finished_when_terminal"): ("(finished_at IS NULL) = (status IN ({}))", OPEN, OLD_OPEN),
    ("trials", "ck_trials_status_known"): ("status IN ({})", STATUSES, OLD_STATUSES),
    ("trials", "ck_trials_finished_when_terminal"): ("(finished_at IS NULL) = (status IN ({}))", OPEN, OLD_OPEN),
}
PAUSED_HAS_NO_WISH = "status <> 'paused' OR (pause_requested_at IS NULL AND cancel_requested_at IS NULL)"
NEW = {
    ("jobs", "ck_jobs_check_never_pauses"): "work <> 'check' OR status <> 'paused'",
    ("jobs", "ck_jobs_paused_has_no_wish"): PAUSED_HAS_NO_WISH,
    ("attempts", "ck_attempts_held_seconds_not_negative"): "held_seconds >= 0",
}
COLUMNS = {
    "jobs": [
        ("pause_requested_at", TIME), ("profile_requested_at", TIME), ("budget_warned_at", TIME), ("efficiency", JSON),
        ("dataset_key", sa.Text()),
    ],
    "attempts": [
        ("profile", sa.Text()), ("price_per_hour", sa.Numeric()), ("currency", sa.Text()), ("started_at", TIME),
        ("held_seconds", sa.Double()),
    ],
    "checkpoints": [("pinned_at", TIME)],
}  # fmt: skip


def upgrade() -> None:
    for table, columns in COLUMNS.items():
        for name, kind in columns:
            op.add_column(table, sa.Column(name, kind, nullable=True))
    op.add_column("workers", sa.Column("device_memory_bytes", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("workers", sa.Column("cpu_features", sa.ARRAY(sa.Text()), server_default="{}", nullable=False))
    op.create_index(
        "ix_jobs_dataset", "jobs", ["project_id", "dataset_key"], postgresql_where="dataset_key IS NOT NULL"
    )
    _create_probes()
    _create_artifacts()
    for (table, name), (condition, statuses, _) in WIDER.items():
        op.drop_constraint(op.f(name), table, type_="check")
        op.create_check_constraint(op.f(name), table, condition.format(statuses), postgresql_not_valid=True)
    for (table, name), condition in NEW.items():
        op.create_check_constraint(op.f(name), table, condition, postgresql_not_valid=True)
    with op.get_context().autocommit_block():
        for table, name in (*WIDER, *NEW):
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def _create_probes() -> None:
    op.create_table(
        "probes",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("device_name", sa.Text(), nullable=False),
        sa.Column("table", JSON, nullable=False),
        sa.Column("updated_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_probes")),
    )


def _create_artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("files", JSON, nullable=False),
        sa.Column("sha256", JSON, nullable=False),
        sa.Column("about", JSON, nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('trace', 'export')", name=op.f("ck_artifacts_kind_known")),
        sa.ForeignKeyConstraint(
            ["job_id", "trial"], ["trials.job_id", "trials.number"], name=op.f("fk_artifacts_job_id_trial")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
        sa.UniqueConstraint("job_id", "path", name=op.f("uq_artifacts_job_id_path")),
    )


def downgrade() -> None:
    """What is paused waits in the queue again: the older schema knows no other place for it."""
    for table in ("trials", "jobs"):
        rows = sa.table(table, sa.column("status"))
        op.execute(rows.update().where(rows.c.status == "paused").values(status="queued"))
    for table, name in NEW:
        op.drop_constraint(op.f(name), table, type_="check")
    for (table, name), (condition, _, statuses) in WIDER.items():
        op.drop_constraint(op.f(name), table, type_="check")
        op.create_check_constraint(op.f(name), table, condition.format(statuses))
    op.drop_table("artifacts")
    op.drop_table("probes")
    op.drop_index("ix_jobs_dataset", table_name="jobs")
    op.drop_column("workers", "cpu_features")
    op.drop_column("workers", "device_memory_bytes")
    for table, columns in COLUMNS.items():
        for name, _ in columns:
            op.drop_column(table, name)
