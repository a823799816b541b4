"""The transport under py-amqp: a non-blocking socket with a buffer in each direction.

py-amqp's own transport reads each frame with several ``recv`` calls of exact size, and blocks in
the middle of an incomplete frame.  This transport receives all available bytes at once, returns
only complete frames, and never blocks on a write: bytes that the socket does not take stay in
the buffer.

py-amqp gets its frames from :meth:`BufferedTransport.read_frame`; the traffic bypasses it.
"""

import os
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from struct import pack
from typing import Any

from amqp.transport import TCPTransport

from qam._broker.frames import FRAME_OVERHEAD, HEARTBEAT, Confirm, Frame, FrameParser
from qam._broker.messages import Delivery
from qam._broker.tls import TLS
from qam._common.deadline import Deadline

# Bytes per recv: small pieces are faster for small messages, large pieces for large messages.
_READ_SIZE, _LARGE_READ_SIZE = 32768, 262144


def _resolve(host: str, port: int, timeout: float | None) -> list[Any]:
    """Return the addresses of *host*; give up on a resolver that hangs after *timeout* seconds."""
    with suppress(socket.gaierror):
        return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    addresses: Future[list[Any]] = Future()

    def look_up() -> None:
        try:
            addresses.set_result(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))
        except BaseException as error:
            addresses.set_exception(error)

    # A daemon, because nothing can interrupt a resolver, and it must not delay the exit.
    resolver = threading.Thread(target=look_up, name=f"qam resolver {host}", daemon=True)
    try:
        resolver.start()
    except RuntimeError:  # no thread can start: resolve here, without a timeout
        look_up()
    return addresses.result(timeout)


class BufferedTransport(TCPTransport):
    """A connected socket, as py-amqp's Connection expects it.

    :param host: the broker's host as the user wrote it; TLS verifies the certificate against it.
    :param tls: the TLS settings; None for plain TCP.
    :param deadline: of the handshake.
    :param socket_settings: TCP options, by number.
    :param on_traffic: called with the traffic that comes while py-amqp waits for its own frame.
    :param on_life: called after bytes have come while py-amqp waits for an answer.
    """

    def __init__(
        self,
        host: str,
        port: int,
        tls: TLS | None,
        deadline: Deadline,
        socket_settings: dict[int, int],
        on_traffic: Callable[[Delivery | Confirm], None],
        on_life: Callable[[], object],
    ) -> None:
        super().__init__("localhost", socket_settings=socket_settings)
        self.host, self.port = host, port
        #: Until when :meth:`read_frame` and the handshake may wait.
        self.deadline = deadline
        # Seconds of silence after which an answer is given up; None to keep the deadline.
        self._silence: float | None = None
        # Bytes that came during the last wait for an answer, without heartbeats.
        self._progress = 0
        self._tls = tls
        self._on_traffic = on_traffic
        self._on_life = on_life
        self.sock: Any = None
        #: The received bytes.
        self.incoming = FrameParser()
        self._outgoing = bytearray()

    # --- connecting ---------------------------------------------------------

    def _connect(self, host: str, port: int, timeout: float | None) -> None:
        error: OSError = TimeoutError("timed out")
        addresses = _resolve(host, port, self._time_left())
        for index, (family, kind, proto, _, address) in enumerate(addresses):
            self.sock = socket.socket(family, kind, proto)
            try:
                # An address that does not answer leaves the others their share of the time.
                self.sock.settimeout((self._time_left() or 0.0) / (len(addresses) - index))
                self.sock.connect(address)
                return
            except OSError as failure:
                self.sock.close()
                self.sock = None
                error = failure
        raise error

    def _time_left(self) -> float | None:
        if self.deadline.expired:
            raise TimeoutError("timed out")
        return self.deadline.wait_time()

    def _setup_transport(self) -> None:
        if self._tls is not None:
            self.sock.settimeout(self._time_left())
            host = self._tls.server_hostname or self.host
            self.sock = self._tls.context.wrap_socket(self.sock, server_hostname=host)
        self.sock.setblocking(False)

    def _set_socket_options(self, socket_settings: dict[int, int]) -> None:
        # py-amqp would also read every other TCP option and set it to the same value again.
        for option, value in {socket.TCP_NODELAY: 1, **socket_settings}.items():
            self.sock.setsockopt(socket.IPPROTO_TCP, option, value)

    # --- reading ------------------------------------------------------------

    @contextmanager
    def having_timeout(self, timeout: float | None) -> Iterator[socket.socket]:
        """Ignore py-amqp's timeouts: the deadline replaces them."""
        yield self.sock

    def expect_answer(self, silence: float) -> None:
        """Let :meth:`read_frame` wait for an answer until nothing comes for *silence* seconds.

        The answer may come after large messages on a slow network, so any byte counts, but not
        heartbeats: the broker sends them, too, while the queue that is asked for is stuck.
        """
        self.deadline, self._silence, self._progress = Deadline(silence), silence, 0

    def expect_answer_until(self, deadline: Deadline) -> None:
        """Let :meth:`read_frame` wait until *deadline*, whatever comes."""
        self.deadline, self._silence = deadline, None

    def read_frame(self, unpack: Any = None) -> Frame:
        """Return the next frame for py-amqp; block until it comes, or until the deadline."""
        while True:
            came = self.incoming.parse()
            if came is None:
                self._wait_for_more()
            elif isinstance(came, (Delivery, Confirm)):
                self._on_traffic(came)
            else:
                if came[0] == HEARTBEAT:
                    self._progress -= FRAME_OVERHEAD + len(came[2])
                return came

    def _wait_for_more(self) -> None:
        if self._progress > 0 and self._silence is not None:
            self.deadline = Deadline(self._silence)
        self.wait()
        self._progress = self.receive()
        if self._progress and self._silence is not None:
            self._on_life()

    def wait(self) -> None:
        """Block until the socket can be read, or written if bytes wait to be written."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.sock, self.interest)
            selector.select(self._time_left())
        self.flush()

    def receive(self) -> int:
        """Receive the available bytes; return how many there were; never blocks."""
        received = 0
        size = _LARGE_READ_SIZE if self.incoming.missing > _READ_SIZE else _READ_SIZE
        pending = True
        while pending:
            try:
                data = self.sock.recv(size)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return received
            if not data:
                self.connected = False
                raise ConnectionResetError("the broker closed the connection")
            self.incoming.feed(data)
            received += len(data)
            # select() does not report bytes that TLS has already decrypted.
            pending = self._tls is not None and self.sock.pending() > 0
        return received

    def abort(self) -> None:
        """Close the socket, and discard everything unsent, including what the kernel has buffered.

        Otherwise the broker could get it after the messages that another connection sends again.
        """
        with suppress(OSError, AttributeError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
            # Without a shutdown, which would end the connection in the orderly way.
            os.close(self.sock.detach())
        self.sock, self.connected = None, False

    def detach(self) -> int | None:
        """Detach the socket without closing it; return its descriptor, or None if there is none."""
        socket, self.sock, self.connected = self.sock, None, False
        return None if socket is None else socket.detach()

    # --- writing ------------------------------------------------------------

    @property
    def interest(self) -> int:
        """The selector events to wait for."""
        both = selectors.EVENT_READ | selectors.EVENT_WRITE
        return both if self._outgoing else selectors.EVENT_READ

    @property
    def backlog(self) -> int:
        """Bytes that wait for the socket to take them."""
        return len(self._outgoing)

    def write(self, s: bytes) -> None:
        """Send *s* as far as the socket takes it; keep the rest for :meth:`flush`."""
        if self._outgoing:
            self._outgoing += s
            self.flush()
        elif (sent := self._send(s)) < len(s):
            self._outgoing += memoryview(s)[sent:]

    _write = write

    def write_later(self, data: bytes) -> None:
        """Buffer *data*, which the next :meth:`write` or :meth:`flush` sends."""
        self._outgoing += data

    def flush(self) -> None:
        """Send the buffered bytes as far as the socket takes them; never blocks."""
        while self._outgoing and (sent := self._send(self._outgoing)):
            del self._outgoing[:sent]

    def _send(self, data: bytes | bytearray) -> int:
        """Send *data*; return how many bytes the socket has taken."""
        try:
            return int(self.sock.send(data))
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0
