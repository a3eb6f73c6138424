# The broker: it logs every write and never forgets a queued job to save memory.
FROM redis:7.2-bookworm
COPY --chmod=755 docker/redis-start.sh /usr/local/bin/redis-start
# The image gives it a number of its own choice.
# hadolint ignore=DL3066
USER redis
EXPOSE 6379
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=5 \
    CMD ["sh", "-c", "REDISCLI_AUTH=$REDIS_PASSWORD redis-cli ping | grep -q PONG"]
ENTRYPOINT ["redis-start"]
