"""The root of what this package raises on purpose.

ModelyardError
├── SettingsError          a setting is wrong (settings.py)
├── RedisServerError       the embedded server cannot be had or does not answer (redis_server.py)
├── UpError                the services cannot be started (up.py)
└── ClientError            the API cannot be reached, or refused (client.py)

The command line prints the message of any of them as one sentence, without a traceback.
"""

from __future__ import annotations


class ModelyardError(Exception):
    """Something a person can mend; the message says what is wrong and what to do."""
