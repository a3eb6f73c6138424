"""urgent jobs that take another's place; what storage and retention keep

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as batch_op:
        # A plain default: for an expression SQLite's table would be made anew, and lose that its
        # numbers are never used twice.
        batch_op.add_column(sa.Column("preempt", sa.Boolean(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("displaced_by", sa.Integer(), nullable=True))
        batch_op.create_index(batch_op.f("ix_jobs_dataset_id"), ["dataset_id"], unique=False)
        batch_op.add_column(sa.Column("output_bytes", sa.BigInteger(), nullable=True))
        batch_op.add_column(
            sa.Column(
                "last_checkpoint", sa.String(length=10), nullable=False, server_default="kept"
            )
        )
        batch_op.add_column(sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.create_index(
            "ix_jobs_deleted",
            ["deleted_at"],
            unique=False,
            postgresql_where=sa.text("deleted_at IS NOT NULL"),
            sqlite_where=sa.text("deleted_at IS NOT NULL"),
        )
    with op.batch_alter_table("projects") as batch_op:
        batch_op.add_column(sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "deleted_jobs",
        sa.Column("job_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_deleted_jobs")),
    )
    op.create_table(
        "disk_measures",
        sa.Column("name", sa.String(length=30), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_disk_measures")),
    )
    op.create_table(
        "dataset_copies",
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("format", sa.String(length=20), nullable=False),
        sa.Column("task_type", sa.String(length=30), nullable=False),
        sa.Column("split_seed", sa.BigInteger(), nullable=False),
        sa.Column("val_share", sa.Float(precision=53), nullable=False),
        sa.Column("damaged", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("try_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("packer", sa.String(length=100), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_dataset_copies")),
    )


def downgrade() -> None:
    op.drop_table("dataset_copies")
    op.drop_table("disk_measures")
    op.drop_table("deleted_jobs")
    with op.batch_alter_table("projects") as batch_op:
        batch_op.drop_column("deleted_at")
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.drop_index("ix_jobs_deleted")
        batch_op.drop_column("deleted_at")
        batch_op.drop_column("last_checkpoint")
        batch_op.drop_column("output_bytes")
        batch_op.drop_index(batch_op.f("ix_jobs_dataset_id"))
        batch_op.drop_column("displaced_by")
        batch_op.drop_column("preempt")
