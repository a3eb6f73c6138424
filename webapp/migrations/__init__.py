"""Alembic's migrations; run with ``python -m webapp.manage migrate``."""
