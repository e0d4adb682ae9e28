"""Keys with scopes, expiry and last use; the audit log, to which rows are only added; which key caused an event.

A key of before could do everything, so it becomes one of its project's administrators.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
JSON = postgresql.JSONB(astext_type=sa.Text())
SCOPES = "'jobs:read', 'jobs:write', 'jobs:priority', 'data:read', 'admin', 'operator'"
RULES = {
    "ck_api_keys_scopes_known": f"scopes <@ ARRAY[{SCOPES}]::text[] AND cardinality(scopes) > 0",
    "ck_api_keys_replaced_expires": "replaced_by IS NULL OR expires_at IS NOT NULL",
}
IN_USE = "revoked_at IS NULL AND replaced_by IS NULL"
KEEP_AUDIT_LOG = """
CREATE FUNCTION keep_audit_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit log is only added to; % is refused', TG_OP USING ERRCODE = 'check_violation';
END $$
"""


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("scopes", sa.ARRAY(sa.Text()), server_default="{admin}", nullable=False))
    op.alter_column("api_keys", "scopes", server_default=None)
    for name in ("expires_at", "last_used_at"):
        op.add_column("api_keys", sa.Column(name, TIME, nullable=True))
    op.add_column("api_keys", sa.Column("replaced_by", sa.Text(), nullable=True))
    op.create_foreign_key(op.f("fk_api_keys_replaced_by"), "api_keys", "api_keys", ["replaced_by"], ["id"])
    for name, condition in RULES.items():
        op.create_check_constraint(op.f(name), "api_keys", condition)
    op.drop_constraint(op.f("uq_api_keys_project_id_name"), "api_keys", type_="unique")
    op.create_index("uq_api_keys_name_in_use", "api_keys", ["project_id", "name"], unique=True, postgresql_where=IN_USE)
    op.create_index("ix_api_keys_project_newest", "api_keys", ["project_id", "id"])
    _create_audit_log()
    op.add_column("events", sa.Column("key_id", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("wished_by", sa.Text(), nullable=True))


def _create_audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("details", JSON, nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_audit_log_project_id")),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_audit_log_key_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index("ix_audit_log_project_newest", "audit_log", ["project_id", "id"])
    op.create_index("ix_audit_log_object", "audit_log", ["project_id", "object_id", "id"])
    op.execute(KEEP_AUDIT_LOG)
    for what, each in (("UPDATE OR DELETE", "ROW"), ("TRUNCATE", "STATEMENT")):
        name = f"keep_audit_log_{each.lower()}"
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {what} ON audit_log FOR EACH {each} EXECUTE FUNCTION keep_audit_log()"
        )


def downgrade() -> None:
    """The older code knows neither scopes nor expiry: keys that it would take for more than they are go, with the log."""
    op.drop_column("jobs", "wished_by")
    op.drop_column("events", "key_id")
    op.drop_table("audit_log")
    op.execute("DROP FUNCTION keep_audit_log")
    op.drop_index("ix_api_keys_project_newest", table_name="api_keys")
    op.drop_index("uq_api_keys_name_in_use", table_name="api_keys")
    for name in RULES:
        op.drop_constraint(op.f(name), "api_keys", type_="check")
    op.drop_constraint(op.f("fk_api_keys_replaced_by"), "api_keys", type_="foreignkey")
    op.execute("DELETE FROM api_keys WHERE expires_at IS NOT NULL OR revoked_at IS NOT NULL OR 'admin' <> ALL (scopes)")
    op.create_unique_constraint(op.f("uq_api_keys_project_id_name"), "api_keys", ["project_id", "name"])
    for name in ("replaced_by", "last_used_at", "expires_at", "scopes"):
        op.drop_column("api_keys", name)
