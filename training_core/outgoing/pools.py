"""urllib3's pools, whose connections go the one way out. Host, SNI and certificate stay those of the name."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from training_core.outgoing.connect import open_connection
from training_core.outgoing.networks import Networks


def pool_manager(networks: Networks, **options: Any) -> urllib3.PoolManager:
    """No proxy of the environment is used; requests raise `Denied` beside urllib3's own errors."""
    manager = urllib3.PoolManager(**options)
    pools: Any = {"http": partial(_HttpPool, networks), "https": partial(_HttpsPool, networks)}
    manager.pool_classes_by_scheme = pools
    return manager


class _HttpConnection(HTTPConnection):
    def __init__(self, *arguments: Any, networks: Networks, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._networks = networks

    def _new_conn(self) -> socket.socket:
        return _connected(self, self._networks)


class _HttpsConnection(HTTPSConnection):
    def __init__(self, *arguments: Any, networks: Networks, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._networks = networks

    def _new_conn(self) -> socket.socket:
        return _connected(self, self._networks)


class _HttpPool(urllib3.HTTPConnectionPool):
    def __init__(self, networks: Networks, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ConnectionCls = partial(_HttpConnection, networks=networks)  # type: ignore[assignment]


class _HttpsPool(urllib3.HTTPSConnectionPool):
    def __init__(self, networks: Networks, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ConnectionCls = partial(_HttpsConnection, networks=networks)  # type: ignore[assignment]


def _connected(connection: HTTPConnection, networks: Networks) -> socket.socket:
    """As urllib3 connects, and with its errors."""
    timeout = connection.timeout if isinstance(connection.timeout, int | float) else None
    host, options = connection.host, connection.socket_options or ()
    try:
        return open_connection(host, connection.port or 0, networks, timeout=timeout, options=list(options))
    except socket.gaierror as problem:
        raise NameResolutionError(host, connection, problem) from problem
    except TimeoutError as problem:
        raise ConnectTimeoutError(connection, "no connection in time") from problem
    except OSError as problem:
        raise NewConnectionError(connection, "no connection") from problem
