# The database. The image's own entry point makes it from POSTGRES_USER, _PASSWORD and _DB.
FROM postgres:17-bookworm
# The image gives it a number of its own choice.
# hadolint ignore=DL3066
USER postgres
EXPOSE 5432
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=5 \
    CMD ["sh", "-c", "pg_isready --quiet --username=$POSTGRES_USER --dbname=$POSTGRES_DB"]
