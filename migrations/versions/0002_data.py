"""Dataset checks, the report on a job's data, and the moment from which an attempt holds its devices.

Every step only adds, with defaults that PostgreSQL keeps in its catalogue: no table is rewritten. The checks are added
unvalidated and validated in transactions of their own, which lets readers and writers go on.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CHECKS = {
    ("jobs", "ck_jobs_work_known"): "work IN ('train', 'check')",
    ("jobs", "ck_jobs_check_never_trains"): "work <> 'check' OR status <> 'running'",
    ("attempts", "ck_attempts_devices_not_negative"): "devices >= 0",
}


def upgrade() -> None:
    op.add_column("jobs", sa.Column("work", sa.Text(), server_default="train", nullable=False))
    op.add_column("jobs", sa.Column("data_report", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.add_column("attempts", sa.Column("data_ready_at", sa.DateTime(timezone=True), nullable=True))
    for (table, name), condition in CHECKS.items():
        op.create_check_constraint(op.f(name), table, condition, postgresql_not_valid=True)
    with op.get_context().autocommit_block():
        for table, name in CHECKS:
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def downgrade() -> None:
    """Checks go with all that belongs to them: without the column they would be trained."""
    jobs = sa.table("jobs", sa.column("id"), sa.column("work"))
    checks = sa.select(jobs.c.id).where(jobs.c.work == "check")
    for name in ("idempotency_keys", "events", "attempts", "trials"):
        table = sa.table(name, sa.column("job_id"))
        op.execute(table.delete().where(table.c.job_id.in_(checks)))
    op.execute(jobs.delete().where(jobs.c.work == "check"))
    for table, name in reversed(CHECKS):
        op.drop_constraint(op.f(name), table, type_="check")
    op.drop_column("attempts", "data_ready_at")
    op.drop_column("jobs", "data_report")
    op.drop_column("jobs", "work")
