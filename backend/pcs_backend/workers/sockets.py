"""The sockets that workers share: a public port with one listening socket a worker, by SO_REUSEPORT.

SO_REUSEPORT would hide a port that another program serves: both would get a part of the connections. So the first socket
of an address is bound and listens without it, which the kernel refuses where anything else listens, and has it set
afterwards; the others join it then.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from pcs_backend.http.listener import BACKLOG_CONNECTIONS_MAX, cannot_listen, url_of


class SharedPort:
    """A port with sockets for every worker. They are closed by `close`, or by leaving the `with` block.

    Attributes:
        url: Where it is.
        shares: The sockets of each worker, one an address.
    """

    def __init__(
        self, host: str, port: int, workers: int, *, tls: bool, allowed: Callable[[str], str]
    ) -> None:
        """Bind and listen; connections wait until workers take them.

        Args:
            host: Address or name.
            port: TCP port; 0 picks one.
            workers: How many.
            tls: Whether they speak TLS.
            allowed: Says what a variable allows.

        Raises:
            ConfigError: Nothing can listen there.
        """
        self.shares: list[list[socket.socket]] = [[] for _ in range(workers)]
        number = port
        try:
            for family, _, _, _, address in _addresses(host, port):
                for worker, share in enumerate(self.shares):
                    share.append(_listen(family, (address[0], number, *address[2:]), first=worker == 0))
                    number = share[0].getsockname()[1]  # picked for one address, it serves all
        except OSError as error:
            self.close()
            raise cannot_listen(port, error, allowed) from None
        self.url = url_of(self.shares[0][0].getsockname(), tls=tls)

    def close(self) -> None:
        """Close this process's copies."""
        for share in self.shares:
            while share:
                share.pop().close()


def _addresses(
    host: str, port: int
) -> list[tuple[socket.AddressFamily, int, int, str, tuple[str | int, ...]]]:
    """Return what a host stands for, each address once."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(found))  # type: ignore[arg-type]  # an address may hold bytes by its type, and never here


def _listen(family: socket.AddressFamily, address: tuple[str | int, ...], *, first: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    with contextlib.ExitStack() as stack:
        stack.callback(listener.close)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # connections of an earlier life may linger
        if not first:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(BACKLOG_CONNECTIONS_MAX)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stack.pop_all()
    return listener
