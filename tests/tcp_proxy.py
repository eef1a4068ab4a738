"""A proxy in front of a database server, which can fall silent without closing anything, as a lost network does."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import urllib.parse


class TcpProxy:
    """Forwards the connections of one port of this host to a server.

    Args:
        url: URL of the database behind it.
    """

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or {"mysql": 3306}.get(parts.scheme, 5432))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        user = parts.netloc.rpartition("@")[0]
        self.url = parts._replace(netloc=f"{user}@127.0.0.1:{self.port}" if user else f"127.0.0.1:{self.port}").geturl()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._lock = threading.Lock()
        self._is_frozen = False
        self._is_over = False
        self.most = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        """Connections that are open now."""
        return len(self._pairs) // 2

    def freeze(self) -> None:
        """Forward nothing more; connections stay as they are, and new ones are taken."""
        self._is_frozen = True

    def thaw(self) -> None:
        """Forward what has come meanwhile, and go on."""
        self._is_frozen = False

    def cut(self) -> None:
        """Close every connection."""
        with self._lock:
            for each in list(self._pairs):
                self._drop(each)

    def close(self) -> None:
        self._is_over = True
        self._thread.join()
        self.cut()
        self._listener.close()

    def _run(self) -> None:
        while not self._is_over:
            with selectors.DefaultSelector() as selector:
                selector.register(self._listener, selectors.EVENT_READ)
                with self._lock:
                    for each in () if self._is_frozen else tuple(self._pairs):
                        selector.register(each, selectors.EVENT_READ)
                ready = [key.fileobj for key, _ in selector.select(0.02)]
            with self._lock:
                for each in ready:
                    if each is self._listener:
                        self._accept()
                    elif each in self._pairs and not self._is_frozen:
                        self._forward(each)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._target)
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs[client], self._pairs[server] = server, client
        self.most = max(self.most, self.count)

    def _forward(self, source: socket.socket) -> None:
        try:
            data = source.recv(65536)
            if data:
                self._pairs[source].sendall(data)
                return
        except OSError:
            pass
        self._drop(source)

    def _drop(self, source: socket.socket) -> None:
        other = self._pairs.pop(source, None)
        if other is not None:
            self._pairs.pop(other, None)
            for each in (source, other):
                with contextlib.suppress(OSError):
                    each.close()
