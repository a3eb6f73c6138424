"""Free and taken ports of this machine."""

from __future__ import annotations

import errno
import random
import socket
from contextlib import suppress

# Below the ports that kernels give to outgoing connections (32768 on Linux, 49152 elsewhere): one
# of those may be taken by any program between its choice here and its use.
PORTS = range(10_000, 32_768)
TRIES = 100


def free_port() -> int:
    """Return a loopback port that nobody has now. Raises OSError where none is found."""
    for port in random.SystemRandom().sample(PORTS, TRIES):
        # Without SO_REUSEADDR: nor one that somebody has bound, to listen on it later.
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"no port between {PORTS.start} and {PORTS.stop - 1} is free")


def port_in_use(host: str, port: int) -> bool:
    """Tell whether something already listens on an address.

    Raises OSError where this machine has no such address, or does not let this user have the port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return True
        return False
