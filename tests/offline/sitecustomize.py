"""Imported by every Python process whose path begins here: a socket that leaves the machine is noted and refused."""

import os
import socket
from pathlib import Path
from typing import Any

connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo
LOOPBACK = ("127.", "::1", "localhost")


def refuse(address: Any) -> None:
    with Path(os.environ["PREFSWEEP_TEST_SOCKETS"]).open("a") as log:
        log.write(f"{address}\n")
    raise OSError(f"the network is off: {address}")


def guarded_connect(self: socket.socket, address: Any) -> None:
    if isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
        refuse(address)
    connect(self, address)


def guarded_lookup(host: Any, *rest: Any, **options: Any) -> Any:
    if host is not None and not str(host).startswith(LOOPBACK):
        refuse(host)
    return getaddrinfo(host, *rest, **options)


socket.socket.connect = guarded_connect  # type: ignore[method-assign,assignment]
socket.getaddrinfo = guarded_lookup
