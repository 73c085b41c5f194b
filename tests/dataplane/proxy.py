"""A TCP proxy in front of a real server, which can be made to misbehave."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Proxy:
    """`mode` counts for new connections: "pass" them on, "hold" them without a word (a black hole, or a
    cluster that is resuming), "refuse" or "cut" them. `freeze` stops the bytes of those that are
    there. What was held is passed on when the mode returns to "pass"; until then it is in `holding`."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.mode = "pass"
        self.frozen = False
        self.accepted = 0
        self.holding: set[socket.socket] = set()
        self._sockets: list[socket.socket] = []
        self._stopped = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._stopped = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def cut(self) -> None:
        """Close everything that is open."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._stopped:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._sockets.append(client)
            self._start(self._serve, client)

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _serve(self, client: socket.socket) -> None:
        while self.mode == "hold" and not self._stopped:
            self.holding.add(client)
            time.sleep(0.01)
        self.holding.discard(client)
        if self.mode == "cut" or self._stopped:
            client.close()
            return
        try:
            server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        self._sockets.append(server)
        self._start(self._copy, server, client)
        self._copy(client, server)

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                while self.frozen and not self._stopped:
                    time.sleep(0.01)
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for sock in (source, sink):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            source.close()
