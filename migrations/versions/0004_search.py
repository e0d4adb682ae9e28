"""Search: trials with parameters, rungs, values and answers of their own; attempts on a share of a device.

Every step only adds or widens, as in 0003.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
JSON = postgresql.JSONB(astext_type=sa.Text())
STATUSES = "'queued', 'preparing', 'running', 'paused', 'succeeded', 'failed', 'cancelled'"
OPEN = "'queued', 'preparing', 'running', 'paused'"

COLUMNS = [
    ("origin", sa.Text()), ("rung", sa.Integer()), ("until", sa.Double()), ("adopts", sa.Text()), ("values", JSON),
    ("why", sa.Text()), ("sampler", JSON), ("progress", JSON), ("plan", JSON), ("result", JSON),
    ("efficiency", JSON), ("error", JSON), ("started_at", TIME),
]  # fmt: skip
SECONDS = ("training_seconds", "evaluation_seconds")
NEW = {
    ("trials", "ck_trials_until_is_a_fraction"): "until > 0 AND until <= 1",
    ("trials", "ck_trials_reached_is_a_fraction"): "reached >= 0 AND reached <= 1",
    ("attempts", "ck_attempts_share_of_one_device"): "share > 0 AND share <= 1 AND (share = 1 OR devices <= 1)",
}


def upgrade() -> None:
    op.add_column("jobs", sa.Column("study", JSON, nullable=True))
    op.create_index("ix_jobs_searches", "jobs", ["finished_at"], postgresql_where="study IS NOT NULL")
    for name, kind in COLUMNS:
        op.add_column("trials", sa.Column(name, kind, nullable=True))
    op.add_column("trials", sa.Column("parameters", JSON, server_default="{}", nullable=False))
    op.add_column("trials", sa.Column("reached", sa.Double(), server_default="0", nullable=False))
    op.add_column("trials", sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False))
    op.create_index("ix_trials_open", "trials", ["status", "job_id"], postgresql_where=f"(status IN ({OPEN}))")
    op.add_column("attempts", sa.Column("share", sa.Double(), server_default="1", nullable=False))
    for name in SECONDS:
        op.add_column("attempts", sa.Column(name, sa.Double(), nullable=True))
    op.create_index("ix_checkpoints_kept", "checkpoints", ["job_id", "trial"], postgresql_where="deleted_at IS NULL")
    _create_rung_values()
    op.drop_constraint(op.f("ck_trials_status_known"), "trials", type_="check")
    op.create_check_constraint(
        op.f("ck_trials_status_known"), "trials", f"status IN ({STATUSES}, 'pruned')", postgresql_not_valid=True
    )
    for (table, name), condition in NEW.items():
        op.create_check_constraint(op.f(name), table, condition, postgresql_not_valid=True)
    with op.get_context().autocommit_block():
        for table, name in (("trials", "ck_trials_status_known"), *NEW):
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def _create_rung_values() -> None:
    op.create_table(
        "rung_values",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("trial", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rung", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("fraction", sa.Double(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("values", JSON, nullable=False),
        sa.Column("reported_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("fraction > 0 AND fraction <= 1", name=op.f("ck_rung_values_fraction_is_one")),
        sa.ForeignKeyConstraint(
            ["job_id", "trial"], ["trials.job_id", "trials.number"], name=op.f("fk_rung_values_job_id_trial")
        ),
        sa.PrimaryKeyConstraint("job_id", "trial", "rung", name=op.f("pk_rung_values")),
    )


def downgrade() -> None:
    """The older code trains no searches: those that are open end, and a pruned trial is a cancelled one to it."""
    _end_searches()
    for table, name in NEW:
        op.drop_constraint(op.f(name), table, type_="check")
    op.drop_constraint(op.f("ck_trials_status_known"), "trials", type_="check")
    op.create_check_constraint(op.f("ck_trials_status_known"), "trials", f"status IN ({STATUSES})")
    op.drop_table("rung_values")
    op.drop_index("ix_trials_open", table_name="trials")
    op.drop_index("ix_checkpoints_kept", table_name="checkpoints")
    for name in ("share", *SECONDS):
        op.drop_column("attempts", name)
    for name in ("created_at", "reached", "parameters", *(name for name, _ in COLUMNS)):
        op.drop_column("trials", name)
    op.drop_index("ix_jobs_searches", table_name="jobs")
    op.drop_column("jobs", "study")


def _end_searches() -> None:
    jobs = sa.table("jobs", sa.column("id"), sa.column("spec", JSON), *_ending("status"))
    trials = sa.table("trials", sa.column("job_id"), *_ending("status"))
    attempts = sa.table("attempts", sa.column("job_id"), *_ending())
    searches = sa.select(jobs.c.id).where(jobs.c.spec["search"].astext.is_not(None))
    ended = {"reason": "cancelled_by_client", "finished_at": sa.func.now()}
    held = attempts.c.finished_at.is_(None) & attempts.c.job_id.in_(searches)
    op.execute(attempts.update().where(held).values(ended))
    for table, job_id in ((trials, trials.c.job_id), (jobs, jobs.c.id)):
        still_open = table.c.finished_at.is_(None) & job_id.in_(searches)
        op.execute(table.update().where(still_open).values({"status": "cancelled", **ended}))
    op.execute("ALTER TABLE trials DISABLE TRIGGER keep_terminal_status")
    op.execute(trials.update().where(trials.c.status == "pruned").values(status="cancelled"))
    op.execute("ALTER TABLE trials ENABLE TRIGGER keep_terminal_status")


def _ending(*more: str) -> list[sa.ColumnClause[Any]]:
    return [sa.column(name) for name in ("reason", "finished_at", *more)]
