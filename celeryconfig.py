"""Every Celery setting, each with the reason beside it. Read by producers, workers and Flower."""

from kombu import Exchange, Queue

from adapters import known_frameworks
from adapters.wire import gpu_queue_name, queue_name
from modelyard.settings import load_settings

_settings = load_settings()

# No REDIS_URL, as in `subprocess` mode and in unit tests: nothing connects before it is used.
broker_url = _settings.redis_url or "redis://127.0.0.1:6379/0"
result_backend = broker_url

# JSON only: a message can never carry code.
task_serializer = result_serializer = event_serializer = "json"
accept_content = ["json"]

# Acknowledge before training. Late acknowledgement restores a message after the visibility
# timeout or one dropped connection, and a second worker trains the same job. Recovery rests on
# leases and the reaper.
task_acks_late = False

# Reserve nothing beyond the free slots: a job parked behind a running one dies with the worker.
worker_disable_prefetch = True
worker_prefetch_multiplier = 1

# Threads, because the children that train may have loader processes of their own, and
# a prefork worker's daemonic processes may not.
worker_pool = "threads"

# A lost connection to the broker must not end a training of hours.
worker_cancel_long_running_tasks_on_connection_loss = False

# Without it, an idle worker that hears of a revoke marks a running task REVOKED.
task_track_started = True

# A broker that is not up yet, or away for a day, is waited for.
broker_connection_retry_on_startup = True
broker_connection_retry = True
broker_connection_max_retries = None
worker_consumer = "workers.consumer:Consumer"  # tries every second, not ever more seldom

_redis_options = {
    "socket_timeout": 15,  # a half-open connection would hang the worker for ever
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
}
broker_transport_options = {
    **_redis_options,
    "visibility_timeout": 300,
    "priority_steps": list(range(10)),
    "queue_order_strategy": "priority",
}
result_backend_transport_options = _redis_options
redis_socket_timeout = 15
redis_socket_connect_timeout = 5
redis_socket_keepalive = True
redis_backend_health_check_interval = 10

# Results are a courtesy to other Celery clients; the truth is in the database.
result_expires = 24 * 3600

# One client for all threads, as redis-py's may be: else each attempt's publisher thread opens a
# connection of its own, which stays until the garbage is collected.
result_backend_thread_safe = True

# A queue a framework, each with its own exchange and key: queues that share Celery's default key
# would all get every message. A misspelt queue is an error, not a new one that nobody reads.
task_queues = [
    Queue(name, Exchange(name, type="direct"), routing_key=name)
    for framework in known_frameworks()
    for name in (queue_name(framework), gpu_queue_name(framework))
]
task_create_missing_queues = False

# Flower lives from these.
worker_send_task_events = True
task_send_sent_event = True

# Our own log configuration stays.
worker_hijack_root_logger = False
worker_redirect_stdouts = False
enable_utc = True
timezone = "UTC"
