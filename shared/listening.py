"""Sockets that a process listens on."""

import socket

from shared.errors import ConfigurationError

BACKLOG = 2048


def listen(host: str, port: int, setting: str = "port") -> socket.socket:
    """Return a listening socket, so that a port in use is an error that says which, and which ``setting`` it is."""
    try:
        listening = socket.create_server((host, port), backlog=BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror}; stop what uses the port, or set {setting} to another"
        ) from None
    # Accepted sockets inherit it. asyncio sets it only on sockets that name their protocol, which these do not, and
    # without it an answer in two parts waits 40 ms for the other side's acknowledgement.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
