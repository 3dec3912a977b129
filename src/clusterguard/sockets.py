"""Loopback: which ports are free, who answers on them, and which URLs lead there."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from clusterguard.errors import ConfigError, ProvisioningError

if TYPE_CHECKING:
    import ssl

__all__ = ["free_ports", "is_loopback", "listening", "require_free", "serving"]


def listening(port: int) -> str | None:
    """Return None once something accepts connections on a loopback port, else why not."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError as error:
        return f"port {port}: {error}"
    return None


def serving(port: int, *, context: ssl.SSLContext) -> str | None:
    """Return None once a server with a certificate that ``context`` trusts has a loopback port, else why not."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            context.wrap_socket(connection, server_hostname="127.0.0.1").close()
    except OSError as error:
        return f"port {port}: {error}"
    return None


def require_free(port: int) -> None:
    """Refuse a loopback port that cannot be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the programs do: remains of a connection
        try:
            probe.bind(("127.0.0.1", port))
        except OverflowError as error:
            raise ConfigError(f"{port} is not a valid port number", hint="choose one between 1024 and 65535") from error
        except OSError as error:
            raise ProvisioningError(
                f"port {port} is not available on 127.0.0.1: {error.strerror}",
                code="port-taken",
                fields={"port": port},
                hint="name another port, or leave it out: then a free one is chosen",
            ) from error


def free_ports(count: int) -> list[int]:
    """Return loopback ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def is_loopback(url: str) -> bool:
    """Return whether a URL, or a host with a port, is this very machine: no proxy is on the way there."""
    host = urlsplit(url if "://" in url else f"//{url}").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
