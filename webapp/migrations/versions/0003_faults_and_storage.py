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
        batch_op.add_column(
            sa.Column("preempt", sa.Boolean(), nullable=False, server_default="0")
        )
        batch_op.add_column(sa.Column("displaced_by", sa.Integer(), nullable=True))
        batch_op.create_index(batch_op.f("ix_jobs_dataset_id"), ["dataset_id"], unique=False)
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
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.drop_index(batch_op.f("ix_jobs_dataset_id"))
        batch_op.drop_column("displaced_by")
        batch_op.drop_column("preempt")
