"""gunicorn's gthread worker, which gives a thread only to a request that is whole.

gunicorn's own waits for a client in a thread: 5 s for the first byte, without an end for the rest. So ten
connections a second that say nothing, or a few clients that send half a head, hold every thread. Here the
main loop's poller collects the request, head and body, and only then a thread gets it:

- A connection has HEAD_SECONDS for the head of a request, from its opening or, where it is reused, from
  the first byte; then REQUEST_SECONDS for the body. Waiting costs a file descriptor and what was sent.
- Whoever is slow gives way to whoever comes: an address over its bound, a process without a free
  connection and one that holds MAX_HELD bytes each close the *oldest* connection that has no whole request.
  A client that sends at once is through before its turn comes, even from an address that it shares with a
  thousand silent ones.
- A body of no announced length (chunked) can't be collected without decoding it. Such requests, and those
  that will be refused for their length, have few threads of their own, so that they hold up each other alone;
  beyond as many of them as there are threads they are answered 503.
- A connection that was answered and is to be closed lingers in the poller, where gunicorn's main loop would
  wait up to 2 s for each client that does not close.

What is left: a thread works REQUEST_SECONDS at most on a request before its connection is shut down, and who
sends whole requests faster than they are answered keeps others waiting. That takes a proxy in front
(docs/proxy.md).
"""

from __future__ import annotations

import errno
import ipaddress
import re
import resource
import selectors
import socket
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from controlplane.settings import ApiSettings
from controlplane.web.body import MAX_BODY

HEAD_SECONDS = 5.0
# More than any request of ours takes: waiting for the registry and its statements are bounded lower.
REQUEST_SECONDS = 15.0
LINGER_SECONDS = 2.0
MAX_HEAD = 64 * 1024  # bytes, as much as an AWS load balancer passes on
MAX_HELD = 64 * 1024 * 1024  # bytes of requests that are not whole, in one process
_OTHER_FILES = 128  # file descriptors of a process that are not clients' connections
_SCAN = 1.0  # seconds between two scans for deadlines that have passed

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n")


@dataclass(slots=True, eq=False)
class _Incoming:
    """A request that is not whole. `origin`: what the bound counts it by, None where it does not. Counts of
    bytes: `searched`, for the end of the head; `head`, 0 until that is found; `size`, of head and body."""

    deadline: float
    origin: str | None
    received: bytearray = field(default_factory=bytearray)
    searched: int = 0
    head: int = 0
    size: int | None = None


class DeadlineWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """All but `handle` runs in the main thread."""

    worker_connections: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_keepalived = self.worker_connections // 2
        self._deadlines: dict[Any, float] = {}
        self._incoming: OrderedDict[Any, _Incoming] = OrderedDict()
        self._origins: dict[str, OrderedDict[Any, None]] = {}
        self._held = 0
        self._unsized: set[Any] = set()
        self._lingering: OrderedDict[Any, float] = OrderedDict()
        self._next_scan = 0.0
        self._closed = 0

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        if cfg.is_ssl or cfg.http2_cleartext != "off":
            raise RuntimeError(
                "certfile, keyfile, http2_cleartext: expected none of them; TLS and HTTP/2 end at the proxy"
                " in front (docs/proxy.md)"
            )

    def init_process(self) -> None:
        settings = ApiSettings.from_environment()
        self._bound = settings.waiting_per_address
        self._unsized_pool = ThreadPoolExecutor(max(1, self.cfg.threads // 4))
        self._allow_files()
        super().init_process()

    def _allow_files(self) -> None:
        """As many file descriptors as the connections take; else fewer connections."""
        wanted = self.worker_connections + _OTHER_FILES
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return
        got = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (got, hard))
        if got < wanted:
            self.worker_connections = max(self.cfg.threads * 2, got - _OTHER_FILES)
            self.max_keepalived = self.worker_connections // 2
            self.log.warning(
                "this process may open %d files, so it takes %d connections instead of %d; raise the limit"
                " of open files (ulimit -n) to %d",
                got,
                self.worker_connections,
                self.cfg.worker_connections,
                wanted,
            )

    def accept(self, listener: Any) -> None:
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE} or not self._make_room():
                raise

    def enqueue_req(self, conn: Any) -> None:
        """gunicorn's every way to a thread: a connection that is new, one that is reused and readable, and
        one whose next request was read along with the last."""
        incoming = _Incoming(time.monotonic() + HEAD_SECONDS, None)
        if conn.initialized:
            incoming.received += conn.parser.unreader.take_buffered()
        elif self._bound:
            incoming.origin = _origin(conn.client)
        conn.sock.setblocking(False)
        self._incoming[conn] = incoming
        self._held += len(incoming.received)
        if incoming.origin is not None:
            self._origins.setdefault(incoming.origin, OrderedDict())[conn] = None
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._receive, conn))
        self._receive(conn, conn.sock)
        of_origin = self._origins.get(incoming.origin or "", ())
        if self._bound and len(of_origin) > self._bound:
            self._close_incoming(next(iter(of_origin)))
        while self.nr_conns >= self.worker_connections and self._make_room():
            pass

    def _receive(self, conn: Any, sock: socket.socket) -> None:
        """Take what has come, and pass the request on once it is whole."""
        incoming = self._incoming.get(conn)
        if incoming is None:
            return  # closed by an earlier event of this round
        ended = False
        try:
            data = sock.recv(MAX_HEAD)
            ended = not data
        except BlockingIOError:
            data = b""
        except OSError:
            self._close_incoming(conn)
            return
        incoming.received += data
        self._held += len(data)
        if not incoming.head:
            end = incoming.received.find(b"\r\n\r\n", incoming.searched)
            incoming.searched = max(0, len(incoming.received) - 3)
            if end >= 0:
                incoming.head = end + 4
                incoming.deadline = time.monotonic() + REQUEST_SECONDS
                self._size(incoming, sock)
        if incoming.head and (ended or len(incoming.received) >= (incoming.size or 0)):
            self._hand_over(conn, incoming)
        elif ended:
            self._close_incoming(conn)
        elif len(incoming.received) > MAX_HEAD and not incoming.head:
            self._refuse(conn, "431 Request Header Fields Too Large")
        else:
            while self._held > MAX_HELD and self._make_room():
                pass

    def _size(self, incoming: _Incoming, sock: socket.socket) -> None:
        """Find the size of a request from its head. In doubt there is none: then gunicorn's parser decides,
        in a thread of those that may wait."""
        head = bytes(incoming.received[: incoming.head]).lower()
        if b"transfer-encoding" in head:
            return
        lengths = _LENGTH.findall(head)
        if len(lengths) != head.count(b"content-length") or len(lengths) > 1:
            return
        length = int(lengths[0]) if lengths else 0
        if length > MAX_BODY:
            return
        incoming.size = incoming.head + length
        if b"100-continue" in head and len(incoming.received) < incoming.size:
            sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _hand_over(self, conn: Any, incoming: _Incoming) -> None:
        pool = self.tpool
        if incoming.size is None:
            if len(self._unsized) >= self.cfg.threads:
                self._refuse(conn, "503 Service Unavailable", "Retry-After: 5")
                return
            pool = self._unsized_pool
            self._unsized.add(conn)
        self._forget_incoming(conn)
        future = pool.submit(self.handle, conn, bytes(incoming.received))
        future.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def _refuse(self, conn: Any, status: str, *headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", *headers, "Content-Length: 0", "Connection: close", "", ""]
        self._forget_incoming(conn)
        try:
            conn.sock.send("\r\n".join(lines).encode())
        except OSError:
            self._close(conn)
        else:
            self._linger(conn)

    def handle(self, conn: Any, received: bytes) -> Any:
        """In a thread of a pool. `received`: what the poller has read of the connection."""
        self._deadlines[conn] = time.monotonic() + REQUEST_SECONDS
        try:
            conn.init()
            conn.parser.unreader.unread(received)
            return super().handle(conn)
        finally:
            del self._deadlines[conn]

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        self._unsized.discard(conn)
        if not fs.cancelled() and fs.exception() is None and fs.result():
            super().finish_request(conn, fs)  # the connection is reused
        else:
            self._linger(conn)

    def _linger(self, conn: Any) -> None:
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._drain, conn))
        except (OSError, ValueError):
            self._close(conn)
        else:
            self._lingering[conn] = time.monotonic() + LINGER_SECONDS

    def _drain(self, conn: Any, sock: socket.socket) -> None:
        """Read what a client still sends of what was answered, or its closing; a connection that is closed
        with data unread is reset, and the answer may be lost."""
        if conn not in self._lingering:
            return
        try:
            if sock.recv(MAX_HEAD):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close_lingering(conn)

    def murder_pending(self) -> None:
        """The main loop calls this after each round of events."""
        now = time.monotonic()
        if now < self._next_scan:
            return
        self._next_scan = now + _SCAN
        for conn, incoming in list(self._incoming.items()):
            if now > incoming.deadline:
                self._close_incoming(conn)
        for conn, deadline in list(self._lingering.items()):
            if now > deadline:
                self._close_lingering(conn)
        for conn, deadline in self._deadlines.copy().items():
            if now > deadline:
                _shut_down(conn.sock)
        if self._closed:
            self.log.info(
                "closed %d connections that sent no whole request in time or gave way to newer ones",
                self._closed,
            )
            self._closed = 0

    def _make_room(self) -> bool:
        """Close the connection that is missed least. Returns whether there was one."""
        if self._lingering:
            self._close_lingering(next(iter(self._lingering)))
        elif self._incoming:
            self._close_incoming(next(iter(self._incoming)))
        else:
            return False
        return True

    def _forget_incoming(self, conn: Any) -> None:
        incoming = self._incoming.pop(conn)
        self._held -= len(incoming.received)
        if incoming.origin is not None:
            of_origin = self._origins[incoming.origin]
            del of_origin[conn]
            if not of_origin:
                del self._origins[incoming.origin]
        self.poller.unregister(conn.sock)

    def _close_incoming(self, conn: Any) -> None:
        self._forget_incoming(conn)
        self._closed += 1
        self._close(conn)

    def _close_lingering(self, conn: Any) -> None:
        del self._lingering[conn]
        self.poller.unregister(conn.sock)
        self._close(conn)

    def _close(self, conn: Any) -> None:
        self.nr_conns -= 1
        conn.close()


def _origin(client: Any) -> str | None:
    """What connections are counted by: an IPv4 address, or an IPv6 network of /64, the least that a
    provider gives to a customer. None for a Unix socket, whose other end is a proxy of this machine."""
    if not isinstance(client, tuple):
        return None
    address = ipaddress.ip_address(client[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)


def _shut_down(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RD)
    except OSError:
        return  # closed a moment ago
