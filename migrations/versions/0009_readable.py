"""What each worker may read, so that a spec can be told before it waits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column("readable", postgresql.JSONB(), server_default="{}", nullable=False)
    op.add_column("workers", column)


def downgrade() -> None:
    op.drop_column("workers", "readable")
