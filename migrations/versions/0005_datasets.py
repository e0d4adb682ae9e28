"""Uploaded datasets, which jobs may read; files of checkpoints with the sha256 of each.

Of a checkpoint that was there before only its manifest's is known.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(astext_type=sa.Text())
TIME = sa.DateTime(timezone=True)
RULES = {
    "state_known": "state IN ('uploading', 'ready', 'gone')",
    "form_known": "form IN ('body', 'parts')",
    "held_bytes_not_negative": "held_bytes >= 0",
    "expires_while_uploading": "(state = 'uploading') = (expires_at IS NOT NULL)",
    "gone_at_when_gone": "(state = 'gone') = (gone_at IS NOT NULL)",
    "gone_has_a_reason": "(state = 'gone') = (why_gone IS NOT NULL)",
    "why_gone_known": "why_gone IN ('deleted', 'aborted', 'expired', 'failed')",
    "purged_when_gone": "purged_at IS NULL OR state = 'gone'",
    "ready_is_whole": "state <> 'ready' OR (ready_at IS NOT NULL AND size_bytes IS NOT NULL AND files IS NOT NULL"
    " AND sha256 IS NOT NULL AND place IS NOT NULL)",
}


def upgrade() -> None:
    op.alter_column("checkpoints", "sha256", new_column_name="manifest_sha256", nullable=True)
    op.add_column("checkpoints", sa.Column("sha256", JSON, server_default="{}", nullable=False))
    op.execute("UPDATE checkpoints SET sha256 = jsonb_build_object('manifest.json', manifest_sha256)")
    op.alter_column("checkpoints", "sha256", server_default=None)
    op.drop_column("checkpoints", "manifest_sha256")
    _create_datasets()
    _create_parts()
    op.add_column("jobs", sa.Column("dataset_id", sa.Text(), nullable=True))
    op.create_index("ix_jobs_upload", "jobs", ["dataset_id"], postgresql_where="dataset_id IS NOT NULL")
    op.create_foreign_key(
        op.f("fk_jobs_dataset_id"), "jobs", "datasets", ["dataset_id"], ["id"], postgresql_not_valid=True
    )
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE jobs VALIDATE CONSTRAINT fk_jobs_dataset_id")


def _create_datasets() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("form", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("held_bytes", sa.BigInteger(), nullable=False),
        sa.Column("announced_bytes", sa.BigInteger(), nullable=True),
        sa.Column("announced_sha256", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("files", sa.Integer(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("place", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("request_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("why_gone", sa.Text(), nullable=True),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        *(sa.Column(name, TIME, nullable=True) for name in ("expires_at", "ready_at", "gone_at", "purged_at")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_datasets_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("project_id", "idempotency_key", name=op.f("uq_datasets_project_id_idempotency_key")),
        *(sa.CheckConstraint(rule, name=op.f(f"ck_datasets_{name}")) for name, rule in RULES.items()),
    )
    op.create_index("ix_datasets_held", "datasets", ["project_id", "id"], postgresql_where="purged_at IS NULL")
    unsettled = "state <> 'ready' AND purged_at IS NULL"
    op.create_index("ix_datasets_unsettled", "datasets", ["id"], postgresql_where=unsettled)


def _create_parts() -> None:
    op.create_table(
        "dataset_parts",
        sa.Column("dataset_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("stored_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_parts_dataset_id")),
        sa.PrimaryKeyConstraint("dataset_id", "number", name=op.f("pk_dataset_parts")),
        sa.CheckConstraint("number BETWEEN 1 AND 10000", name=op.f("ck_dataset_parts_number_in_bounds")),
    )


def downgrade() -> None:
    op.drop_constraint(op.f("fk_jobs_dataset_id"), "jobs", type_="foreignkey")
    op.drop_index("ix_jobs_upload", "jobs")
    op.drop_column("jobs", "dataset_id")
    op.drop_table("dataset_parts")
    op.drop_table("datasets")
    op.alter_column("checkpoints", "sha256", new_column_name="sha256s", nullable=True)
    op.add_column("checkpoints", sa.Column("sha256", sa.Text(), server_default="", nullable=False))
    op.execute("UPDATE checkpoints SET sha256 = coalesce(sha256s ->> 'manifest.json', '')")
    op.alter_column("checkpoints", "sha256", server_default=None)
    op.drop_column("checkpoints", "sha256s")
