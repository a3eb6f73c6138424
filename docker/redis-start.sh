#!/bin/sh
# Start Redis with the password of REDIS_PASSWORD, in a file, since every user may read a command line.
set -eu
folder=${REDIS_DATA:-/data}
port=${REDIS_PORT:-6379}
umask 077
cat > "$folder/redis.conf" <<EOF
bind * -::*
port $port
requirepass ${REDIS_PASSWORD:?set it, for example to: openssl rand -hex 24}
dir $folder
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
EOF
exec redis-server "$folder/redis.conf"
