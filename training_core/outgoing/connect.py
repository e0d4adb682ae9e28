"""Resolves a name once, looks at each of its addresses, and connects to one of those very addresses."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from training_core.contract.errors import Failed, Reason
from training_core.outgoing.networks import Networks

SETTING = "TRAINYARD_ALLOWED_NETWORKS"
Found = tuple[int, int, int, str, Any]


class Denied(Failed):
    """The name leads into a network that is none of the client's business. Which address it has is not told."""

    def __init__(self, host: str) -> None:
        super().__init__(
            Reason.DATASET_FORBIDDEN,
            f"{host} lies at an address that this worker may not reach: it is not of the public internet",
            f"use a public address, or have the operator allow its network or host with {SETTING} on the worker",
        )


def permitted(host: str, port: int, networks: Networks) -> Sequence[Found]:
    """All addresses of `host`, as `getaddrinfo` gives them; one that may not be reached refuses them all.

    Raises `Denied`, and `socket.gaierror` for a name that there is not.
    """
    name = host.lower().removesuffix(".").strip("[]")
    found: list[Found] = list(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM))
    name = f"[{name}]" if ":" in name else name
    for *_, place in found:
        if not networks.allow(name, port, ip_address(str(place[0]).partition("%")[0])):
            raise Denied(host)
    return found


def check_host(host: str, port: int, networks: Networks) -> None:
    """For clients that open their connections themselves. Raises `Denied`; a name that there is not, they will meet."""
    try:
        permitted(host, port, networks)
    except OSError:
        return


def open_connection(
    host: str, port: int, networks: Networks, *, timeout: float | None, options: Sequence[tuple[int, int, int | bytes]]
) -> socket.socket:
    """A connected socket; addresses are tried in turn. Raises `Denied` and `OSError`."""
    problem: OSError = OSError("the name has no address")
    for family, kind, protocol, _, place in permitted(host, port, networks):
        connection = socket.socket(family, kind, protocol)
        try:
            for option in options:
                connection.setsockopt(*option)
            connection.settimeout(timeout)
            connection.connect(place)
        except OSError as error:
            connection.close()
            problem = error
        else:
            return connection
    raise problem
