"""Files of checkpoints with the sha256 of each.

Of a checkpoint that was there before only its manifest's is known.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0004"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(astext_type=sa.Text())


def upgrade() -> None:
    op.alter_column("checkpoints", "sha256", new_column_name="manifest_sha256", nullable=True)
    op.add_column("checkpoints", sa.Column("sha256", JSON, server_default="{}", nullable=False))
    op.execute("UPDATE checkpoints SET sha256 = jsonb_build_object('manifest.json', manifest_sha256)")
    op.alter_column("checkpoints", "sha256", server_default=None)
    op.drop_column("checkpoints", "manifest_sha256")


def downgrade() -> None:
    op.alter_column("checkpoints", "sha256", new_column_name="sha256s", nullable=True)
    op.add_column("checkpoints", sa.Column("sha256", sa.Text(), server_default="", nullable=False))
    op.execute("UPDATE checkpoints SET sha256 = coalesce(sha256s ->> 'manifest.json', '')")
    op.alter_column("checkpoints", "sha256", server_default=None)
    op.drop_column("checkpoints", "sha256s")
