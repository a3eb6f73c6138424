"""what adapters and data sets tell in addition

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("datasets") as batch_op:
        batch_op.add_column(sa.Column("task_types", sa.JSON(), nullable=True))
        batch_op.add_column(
            sa.Column("multi_label", sa.Boolean(), nullable=False, server_default=sa.false())
        )
        batch_op.add_column(
            sa.Column("split_seed", sa.BigInteger(), nullable=False, server_default="0")
        )
        batch_op.add_column(
            sa.Column("val_share", sa.Float(precision=53), nullable=False, server_default="0.2")
        )
        batch_op.add_column(sa.Column("split_rule", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("keypoints", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("statistics", sa.JSON(), nullable=True))
        batch_op.add_column(
            sa.Column("uploaded", sa.Boolean(), nullable=False, server_default=sa.false())
        )
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.add_column(
            sa.Column("split_seed", sa.BigInteger(), nullable=False, server_default="0")
        )
        batch_op.add_column(
            sa.Column("val_share", sa.Float(precision=53), nullable=False, server_default="0.2")
        )
        batch_op.add_column(sa.Column("initial_job_id", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("decisions", sa.JSON(), nullable=True))

    op.create_table(
        "dataset_checks",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("phase", sa.String(length=20), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_dataset_checks_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_checks")),
    )
    with op.batch_alter_table("dataset_checks", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_dataset_checks_user_id"), ["user_id"], unique=False)

    op.create_table(
        "load_samples",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cpu_percent", sa.Float(precision=53), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("gpu_percent", sa.Float(precision=53), nullable=True),
        sa.Column("gpu_memory_bytes", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_load_samples_job_id_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_load_samples")),
    )
    with op.batch_alter_table("load_samples", schema=None) as batch_op:
        batch_op.create_index("ix_load_samples_job_id_id", ["job_id", "id"], unique=False)

    op.create_table(
        "exports",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("format", sa.String(length=20), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("artifact", sa.String(length=300), nullable=True),
        sa.Column("largest_difference", sa.Float(precision=53), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("requested_by", sa.String(length=300), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_exports_job_id_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exports")),
    )
    with op.batch_alter_table("exports", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_exports_job_id"), ["job_id"], unique=False)

    with op.batch_alter_table("attempts") as batch_op:
        batch_op.add_column(sa.Column("failure", sa.JSON(), nullable=True))
    with op.batch_alter_table("job_events", schema=None) as batch_op:
        batch_op.create_index(
            "ix_job_events_progress",
            ["job_id"],
            unique=False,
            postgresql_where=sa.text("type = 'progress'"),
            sqlite_where=sa.text("type = 'progress'"),
        )
        batch_op.create_index(
            "ix_job_events_load",
            ["job_id"],
            unique=False,
            postgresql_where=sa.text("type = 'load'"),
            sqlite_where=sa.text("type = 'load'"),
        )


def downgrade() -> None:
    with op.batch_alter_table("attempts") as batch_op:
        batch_op.drop_column("failure")
    with op.batch_alter_table("job_events", schema=None) as batch_op:
        batch_op.drop_index("ix_job_events_load")
        batch_op.drop_index("ix_job_events_progress")
    op.drop_table("exports")
    op.drop_table("load_samples")
    op.drop_table("dataset_checks")
    with op.batch_alter_table("jobs") as batch_op:
        for name in ("decisions", "initial_job_id", "val_share", "split_seed"):
            batch_op.drop_column(name)
    with op.batch_alter_table("datasets") as batch_op:
        for name in (
            "uploaded",
            "statistics",
            "keypoints",
            "split_rule",
            "val_share",
            "split_seed",
            "multi_label",
            "task_types",
        ):
            batch_op.drop_column(name)
