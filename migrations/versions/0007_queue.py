"""The queue by lanes: an index that finds each lane's first, and what the last look decided about it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)

WAITING = """
  jobs.cancel_requested_at IS NULL AND jobs.pause_requested_at IS NULL AND (jobs.study ->> 'stopping') IS NULL
  AND (jobs.status = 'queued'
       OR (jobs.status IN ('preparing', 'running') AND (jobs.spec ->> 'search') IS NOT NULL))
"""
LANE = """
  (jobs.work || CASE WHEN (jobs.spec ->> 'search') IS NULL THEN '|plain' ELSE '|search' END
   || CASE WHEN jobs.data_ready_at IS NULL THEN '|new|' ELSE '|ready|' END
   || (CASE WHEN coalesce(jobs.spec #>> '{compute,share}', 'auto') = 'auto'
            THEN coalesce(jobs.study ->> 'share', '1.0') ELSE jobs.spec #>> '{compute,share}' END)
   || '|' || coalesce(jobs.spec #>> '{compute,profile}', 'auto'))
"""


def upgrade() -> None:
    op.create_table(
        "queue_lanes",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("decided_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("unserved_since", TIME, nullable=True),
        sa.PrimaryKeyConstraint("project_id", "lane", name=op.f("pk_queue_lanes")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_queue_lanes_project_id")),
    )
    op.create_table(
        "queue_looks",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("looked_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_queue_looks")),
        sa.CheckConstraint("id = 1", name=op.f("ck_queue_looks_one_row")),
    )
    op.execute(f"CREATE INDEX ix_jobs_lanes ON jobs (project_id, ({LANE}), priority DESC, id) WHERE {WAITING}")


def downgrade() -> None:
    op.drop_index("ix_jobs_lanes", table_name="jobs")
    op.drop_table("queue_looks")
    op.drop_table("queue_lanes")
