import selectors
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from struct import pack
from typing import Any

import pytest
import trustme
from amqp.exceptions import UnexpectedFrame

from qam._broker import transport as transport_module
from qam._broker.tls import TLS
from qam._broker.transport import BufferedTransport
from qam._common.deadline import Deadline
from tests.support.descriptors import open_descriptors

LONG = 30.0  # seconds; nothing here takes that long unless it is broken
HEADER = b"AMQP\x00\x00\x09\x01"  # what a client opens a connection with


def frame(payload: bytes = b"payload", kind: int = 1, channel: int = 1) -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def receive(peer: socket.socket, size: int) -> bytes:
    """Exactly *size* bytes, or what came before the end."""
    data = b""
    while len(data) < size and (chunk := peer.recv(size - len(data))):
        data += chunk
    return data


@pytest.fixture(autouse=True)
def no_descriptor_left() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LONG)
        yield listener


def transport_to(
    listener: socket.socket,
    *,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    timeout: float = LONG,
) -> BufferedTransport:
    secured = None if tls is None else TLS(tls)
    port = listener.getsockname()[1]
    return BufferedTransport(host, port, secured, Deadline(timeout), {}, lambda came: None, int)


@contextmanager
def connected(listener: socket.socket) -> Iterator[tuple[BufferedTransport, socket.socket]]:
    """A transport, and the broker's end of its connection."""
    with closing(transport_to(listener)) as transport:
        transport.connect()
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(LONG)
            assert receive(peer, len(HEADER)) == HEADER
            yield transport, peer


@pytest.fixture
def ends(listener: socket.socket) -> Iterator[tuple[BufferedTransport, socket.socket]]:
    with connected(listener) as both:
        yield both


Ends = tuple[BufferedTransport, socket.socket]


# --- connecting -------------------------------------------------------------


def test_it_connects_and_never_blocks_afterwards(ends: Ends) -> None:
    transport, _ = ends

    assert transport.connected
    assert not transport.sock.getblocking()
    with transport.having_timeout(5) as sock:
        assert sock is transport.sock
        assert not sock.getblocking()


def test_the_options_of_the_socket_are_set(listener: socket.socket) -> None:
    # given
    transport = BufferedTransport(
        "127.0.0.1",
        listener.getsockname()[1],
        None,
        Deadline(LONG),
        {socket.TCP_USER_TIMEOUT: 12345},
        lambda came: None,
        int,
    )

    # when
    with closing(transport):
        transport.connect()

        # then
        option = transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert option == 12345


def test_no_option_is_set_back_to_what_it_was_a_moment_ago(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be fixed by that; and what data that comes meanwhile has changed is refused."""
    # given
    names: set[int] = set()

    class Socket(socket.socket):
        def setsockopt(self, level: int, name: int, *value: Any) -> None:
            if level == socket.IPPROTO_TCP:
                names.add(name)
            super().setsockopt(level, name, *value)

    monkeypatch.setattr(transport_module.socket, "socket", Socket)

    # when
    with closing(transport_to(listener)) as transport:
        transport.connect()

    # then
    assert socket.TCP_NODELAY in names
    assert not names & {socket.TCP_MAXSEG, socket.TCP_WINDOW_CLAMP}


def test_where_nothing_listens_it_says_so(listener: socket.socket) -> None:
    transport = transport_to(listener)
    listener.close()

    with pytest.raises(ConnectionRefusedError):
        transport.connect()

    assert transport.sock is None
    assert not transport.connected


def test_of_several_addresses_the_first_that_answers_is_used(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        dead = unused.getsockname()
        live = listener.getsockname()
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (dead, live)
        ]
        monkeypatch.setattr(transport_module.socket, "getaddrinfo", lambda *args: addresses)
        with closing(transport_to(listener)) as transport:
            # when
            transport.connect()

            # then
            assert transport.sock.getpeername() == live


def test_when_no_address_answers_the_last_reason_is_told(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module.socket, "getaddrinfo", lambda *args: [])
    with pytest.raises(TimeoutError):
        transport_to(listener).connect()


def test_after_the_deadline_it_does_not_even_try(listener: socket.socket) -> None:
    with pytest.raises(TimeoutError):
        transport_to(listener, timeout=0.0).connect()


# --- reading ----------------------------------------------------------------


def test_a_frame_is_read_as_it_was_sent(ends: Ends) -> None:
    transport, peer = ends

    peer.sendall(frame(b"payload", kind=1, channel=513))

    assert transport.read_frame() == (1, 513, b"payload")
    assert transport.incoming.parse() is None


@pytest.mark.parametrize("size", [0, 1, 8191, 65536, 131072])
@pytest.mark.parametrize("kind", [1, 2, 3, 8])
def test_frames_of_every_size_and_kind_are_read(listener: Any, size: int, kind: int) -> None:
    with connected(listener) as (transport, peer):
        payload = bytes(range(256)) * (size // 256 + 1)
        sender = threading.Thread(target=peer.sendall, args=(frame(payload[:size], kind),))
        sender.start()

        assert transport.read_frame() == (kind, 1, payload[:size])

        sender.join(LONG)


def test_a_frame_that_comes_in_pieces_is_read_when_it_is_whole(ends: Ends) -> None:
    # given
    transport, peer = ends
    whole = frame(b"ab")

    for position in range(len(whole)):
        # then
        assert transport.incoming.parse() is None

        # when
        peer.sendall(whole[position : position + 1])
        transport.wait()
        transport.receive()

    # then
    assert transport.read_frame() == (1, 1, b"ab")


def test_frames_that_come_in_one_piece_are_read_one_by_one(ends: Ends) -> None:
    transport, peer = ends
    peer.sendall(frame(b"1") + frame(b"2") + frame(b"3")[:-1])

    assert transport.read_frame()[2] == b"1"
    assert transport.read_frame()[2] == b"2"
    assert transport.incoming.parse() is None

    peer.sendall(b"\xce")
    assert transport.read_frame()[2] == b"3"


def test_what_was_read_is_no_part_of_what_is_read_next(ends: Ends) -> None:
    transport, peer = ends
    peer.sendall(frame(b"first"))
    first = transport.read_frame()[2]

    peer.sendall(frame(b"other"))
    transport.read_frame()

    assert first == b"first"
    assert type(first) is bytes


def test_receiving_nothing_does_not_block(ends: Ends) -> None:
    transport, _ = ends

    transport.receive()

    assert transport.incoming.parse() is None


def test_a_frame_that_does_not_come_is_waited_for_until_the_deadline(ends: Ends) -> None:
    transport, peer = ends
    peer.sendall(frame()[:5])
    transport.deadline = Deadline(0.05)

    with pytest.raises(TimeoutError):
        transport.read_frame()

    assert transport.deadline.expired


def test_the_end_of_the_connection_is_an_error(ends: Ends) -> None:
    transport, peer = ends
    peer.sendall(frame()[:5])
    peer.close()

    with pytest.raises(ConnectionResetError, match="the broker closed the connection"):
        transport.read_frame()

    assert not transport.connected


def test_a_frame_that_came_before_the_end_is_still_read(ends: Ends) -> None:
    transport, peer = ends
    peer.sendall(frame(b"last"))
    peer.close()

    assert transport.read_frame()[2] == b"last"


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad Request", b"SSH-2.0-x", HEADER, b"\x01\x00\x00\xff\xff\xff\xff"]
)
def test_a_peer_that_speaks_something_else_is_found_out(ends: Ends, data: bytes) -> None:
    transport, peer = ends
    peer.sendall(data)

    with pytest.raises(UnexpectedFrame, match="does not speak AMQP"):
        transport.read_frame()


def test_a_frame_without_its_end_is_found_out(ends: Ends) -> None:
    transport, peer = ends
    peer.sendall(frame()[:-1] + b"\x00")

    with pytest.raises(UnexpectedFrame, match="does not end where it should"):
        transport.read_frame()


# --- writing ----------------------------------------------------------------


def test_what_is_written_is_sent_at_once(ends: Ends) -> None:
    transport, peer = ends

    transport.write(b"data")

    assert receive(peer, 4) == b"data"
    assert transport.interest == selectors.EVENT_READ


def test_what_the_socket_does_not_take_is_kept_until_it_can(ends: Ends) -> None:
    # given
    transport, peer = ends
    data = bytes(range(256)) * 4 * 16384  # 16 MiB: more than the system buffers

    # when
    transport.write(data[: len(data) // 2])
    transport.write(data[len(data) // 2 :])

    # then
    assert transport.interest == selectors.EVENT_READ | selectors.EVENT_WRITE
    assert 0 < transport.backlog < len(data)

    # when
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(receive(peer, len(data))))
    reader.start()
    while transport.interest & selectors.EVENT_WRITE:
        transport.wait()

    # then
    reader.join(LONG)
    assert received == [data]
    assert transport.interest == selectors.EVENT_READ
    assert transport.backlog == 0


def test_writing_to_a_connection_that_is_gone_is_an_error(ends: Ends) -> None:
    transport, peer = ends
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
    peer.close()  # with a reset
    transport.wait()

    with pytest.raises(ConnectionError):
        transport.write(b"data")


# --- TLS --------------------------------------------------------------------


class TLSServer:
    """Accepts one connection by TLS, says how it went, and does what it is told with it."""

    def __init__(self, listener: socket.socket, certificate: trustme.LeafCert) -> None:
        self._listener = listener
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(self._context)
        self.received = b""
        self.error: Exception | None = None

    @contextmanager
    def serving(self, data: bytes, expected: int = 0) -> Iterator["TLSServer"]:
        """Send *data* and receive *expected* bytes behind the header, in a thread."""
        thread = threading.Thread(target=self._serve, args=(data, expected))
        thread.start()
        yield self
        thread.join(LONG)
        assert not thread.is_alive()

    def _serve(self, data: bytes, expected: int) -> None:
        plain, _ = self._listener.accept()
        plain.settimeout(LONG)
        with plain:
            try:
                with self._context.wrap_socket(plain, server_side=True) as peer:
                    receive(peer, len(HEADER))
                    peer.sendall(data)
                    self.received = receive(peer, expected)
                    peer.recv(1)  # until the client closes
            except OSError as error:
                self.error = error


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_by_tls_it_reads_and_writes_as_without(
    listener: socket.socket, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    # given
    server = TLSServer(listener, authority.issue_cert("localhost"))
    frames = [frame(bytes([number]) * 50_000) for number in range(20)]
    data = bytes(range(256)) * 4 * 4096  # 4 MiB
    with (
        server.serving(b"".join(frames), len(data)),
        closing(transport_to(listener, host="localhost", tls=trusting)) as transport,
    ):
        # when
        transport.connect()

        # then
        assert not transport.sock.getblocking()
        for expected in frames:
            assert frame(transport.read_frame()[2]) == expected

        # when
        transport.write(data)
        while transport.interest & selectors.EVENT_WRITE:
            transport.wait()

    # then
    assert server.received == data


def test_what_tls_has_decrypted_is_received_although_the_socket_is_empty(
    listener: socket.socket, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    # given: one TLS record with many frames, more than one recv takes
    server = TLSServer(listener, authority.issue_cert("localhost"))
    frames = frame(b"x" * 100) * 150
    with (
        pytest.MonkeyPatch.context() as patch,
        server.serving(frames),
        closing(transport_to(listener, host="localhost", tls=trusting)) as transport,
    ):
        patch.setattr(transport_module, "_READ_SIZE", 64)
        transport.connect()

        # when: each wait is for the socket itself
        for _ in range(150):
            # then
            assert transport.read_frame()[2] == b"x" * 100


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_certificate_of_the_name_that_the_user_wrote_is_accepted(
    listener: socket.socket, authority: trustme.CA, trusting: ssl.SSLContext, host: str
) -> None:
    server = TLSServer(listener, authority.issue_cert(host))

    with (
        server.serving(frame(b"hello")),
        closing(transport_to(listener, host=host, tls=trusting)) as transport,
    ):
        transport.connect()

        assert transport.read_frame()[2] == b"hello"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_certificate_of_another_name_is_refused(
    listener: socket.socket, authority: trustme.CA, trusting: ssl.SSLContext, host: str
) -> None:
    server = TLSServer(listener, authority.issue_cert("other.example"))

    with server.serving(b""), closing(transport_to(listener, host=host, tls=trusting)) as transport:
        with pytest.raises(ssl.SSLCertVerificationError):
            transport.connect()
        assert not transport.connected

    assert server.error is not None
    assert server.received == b""


def test_a_certificate_of_an_unknown_authority_is_refused(
    listener: socket.socket, authority: trustme.CA
) -> None:
    server = TLSServer(listener, authority.issue_cert("localhost"))
    stranger = ssl.create_default_context()

    with (
        server.serving(b""),
        closing(transport_to(listener, host="localhost", tls=stranger)) as transport,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        transport.connect()


def test_a_peer_that_never_shakes_hands_is_given_up_at_the_deadline(
    listener: socket.socket, trusting: ssl.SSLContext
) -> None:
    transport = transport_to(listener, host="localhost", tls=trusting, timeout=0.2)

    with closing(transport), pytest.raises(TimeoutError):
        transport.connect()


def test_a_peer_without_tls_is_an_ssl_error(
    listener: socket.socket, trusting: ssl.SSLContext
) -> None:
    # given
    def answer_plainly() -> None:
        peer, _ = listener.accept()
        with peer, suppress(ConnectionResetError):
            peer.settimeout(LONG)
            peer.recv(1)
            peer.sendall(HEADER)
            while peer.recv(65536):
                pass

    thread = threading.Thread(target=answer_plainly)
    thread.start()

    # when
    transport = transport_to(listener, host="localhost", tls=trusting)
    with closing(transport), pytest.raises(ssl.SSLError):
        transport.connect()

    # then
    thread.join(LONG)
    assert not thread.is_alive()
