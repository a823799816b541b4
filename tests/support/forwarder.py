"""A TCP forwarder that stands between clients and the broker, and fails as a network does."""

import queue
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

#: Is asked about each chunk that came, and whether it is on its way to the broker.
Predicate = Callable[[bytes, bool], bool]

_CHUNK = 65536  # bytes
_SLOW_CHUNKS = 20  # a second: how smoothly slow bytes flow
_IO_TIMEOUT = 5.0  # seconds; the peers are on this machine
_ENDED = select.POLLHUP | select.POLLERR
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class _Way:
    """The bytes of one connection that go one way."""

    def __init__(self, source: socket.socket, sink: socket.socket, towards_broker: bool) -> None:
        self.source, self.sink, self.towards_broker = source, sink, towards_broker
        self.held = b""  # what has come, and has yet to go on
        self.ended = False  # the source has said that nothing more will come
        self.rests_until = 0.0  # on the monotonic clock

    def take(self, most: int) -> bytes:
        """Read what has come; nothing if that is the end, which the sink learns too."""
        chunk = self.source.recv(most)
        if not chunk:
            self.ended = True
            with suppress(OSError):  # the sink may be gone by itself
                self.sink.shutdown(socket.SHUT_WR)
        return chunk

    def give(self) -> None:
        """Write as much of what is held as can be written now."""
        with suppress(BlockingIOError):
            self.held = self.held[self.sink.send(self.held) :]

    def give_all_and_end(self) -> None:
        """Write all that is held, then the end of the stream."""
        self.sink.settimeout(_IO_TIMEOUT)
        self.sink.sendall(self.held)
        self.sink.shutdown(socket.SHUT_WR)


class _Link:
    """One connection: the two sockets that it passes through, and its two ways."""

    def __init__(self, client: socket.socket, broker: socket.socket) -> None:
        self.sockets = (client, broker)
        self.ways = (_Way(client, broker, True), _Way(broker, client, False))
        for end in self.sockets:
            end.setblocking(False)

    @property
    def done(self) -> bool:
        return all(way.ended for way in self.ways)

    def close(self) -> None:
        for end in self.sockets:
            end.close()

    def reset(self) -> None:
        for end in self.sockets:
            _reset(end)


@dataclass
class _Trap:
    """A cut that waits for its chunk."""

    predicate: Predicate
    after: bool  # the chunk still goes on
    sprung: threading.Event = field(default_factory=threading.Event)


class Forwarder:
    """Forwards what connects to its `host` and `port` to a broker, until it is told to fail.

    It takes connections from the moment it is made, and ends with its block, or by `close`.
    Each method that changes something returns when the change is in force, also for connections
    that a client sees as open and nobody has looked at yet.

    A chunk is what one read gives: the bytes of a small request in one piece, as a rule; but
    bytes that are sent at about the same time can share a chunk, and a large message takes several.
    """

    def __init__(self, host: str, port: int) -> None:
        self._broker = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.setblocking(False)
        self.host, self.port = self._listener.getsockname()
        # What follows belongs to the thread; others leave it commands.
        self._links: list[_Link] = []
        self._last_reads: list[socket.socket] = []  # ends of cut links that are still reading
        self._traps: list[_Trap] = []
        self._stalled: set[bool] = set()  # the ways on which nothing goes on; True: to the broker
        self._rates: dict[bool, float] = {}  # bytes per second, for the ways that are slow
        self._refusing = self._closing = False
        self._commands: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]]
        self._commands = queue.SimpleQueue()
        self._bell, self._doorbell = socket.socketpair()
        # A daemon, so that tests that forget to close it do not hang at the end.
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- what tests do with it ----------------------------------------------------

    @property
    def connections(self) -> int:
        """How many connections pass through now."""
        return self._do(len, self._links)

    def cut(self) -> None:
        """End each connection that passes through now, with RST on both sides."""
        self._do(self._cut)

    def stall(self, *, towards_broker: bool = True, towards_client: bool = True) -> None:
        """Be a black hole: what is sent the given ways, also by new connections, waits.

        Connections are still taken, and stay open. With `resume` all that was sent comes through,
        as after an outage that TCP has survived.
        """
        self._do(self._stalled.update, _ways(towards_broker, towards_client))

    def slow(
        self, bytes_per_second: float, *, towards_broker: bool = True, towards_client: bool = True
    ) -> None:
        """Let each connection have that many bytes a second, each of the given ways."""
        ways = _ways(towards_broker, towards_client)
        self._do(self._rates.update, dict.fromkeys(ways, bytes_per_second))

    def resume(self) -> None:
        """Forward everything at once again, after `stall` or `slow`."""
        self._do(self._resume)

    def refuse(self) -> None:
        """Reset new connections at once; those that there are stay."""
        self._do(setattr, self, "_refusing", True)

    def accept(self) -> None:
        """Take new connections again."""
        self._do(setattr, self, "_refusing", False)

    def cut_when(self, predicate: Predicate) -> threading.Event:
        """Cut everything instead of forwarding the first chunk for which *predicate* is true.

        It is asked in the forwarder's thread. The event that is returned is set after the cut;
        from then on *predicate* is not asked again, and new connections pass.
        """
        return self._set_trap(_Trap(predicate, after=False))

    def cut_after(self, predicate: Predicate) -> threading.Event:
        """Forward the first chunk for which *predicate* is true, then cut everything.

        Who gets that chunk reads it, and then the end of the stream (a FIN); all others get RST,
        and what was on its way to them is lost: so a broker has the request, and its client never
        learns it. The rest is as with `cut_when`.
        """
        return self._set_trap(_Trap(predicate, after=True))

    def close(self) -> None:
        """End everything; nothing is left of it. Also good when closed already."""
        if self._thread.is_alive():
            self._do(setattr, self, "_closing", True)
        self._thread.join()

    def _set_trap(self, trap: _Trap) -> threading.Event:
        self._do(self._traps.append, trap)
        return trap.sprung

    def _do(self, command: Callable[..., Any], *args: Any) -> Any:
        """Have the thread obey a command, and return what that gives."""
        if not self._thread.is_alive():
            raise RuntimeError("the forwarder is closed")
        if threading.current_thread() is self._thread:  # a predicate asks
            return command(*args)
        future: Future[Any] = Future()
        self._commands.put((future, partial(command, *args)))
        self._doorbell.send(b"!")
        return future.result(_IO_TIMEOUT)

    # --- the thread -----------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn(self._ready())
        finally:
            self._cut()
            for end in (self._listener, self._bell, self._doorbell, *self._last_reads):
                end.close()

    def _ready(self) -> dict[int, int]:
        """Wait until there is something to do; return what happened to which descriptor."""
        always = (self._bell, self._listener, *self._last_reads)
        awaited = {end.fileno(): select.POLLIN for end in always}
        for link in self._links:
            for descriptor, event in filter(None, map(self._awaited, link.ways)):
                awaited[descriptor] = awaited.get(descriptor, 0) | event
        poll = select.poll()
        for descriptor, events in awaited.items():
            poll.register(descriptor, events)
        return dict(poll.poll(self._shortest_rest()))

    def _awaited(self, way: _Way) -> tuple[int, int] | None:
        """What has to happen, to which descriptor, before bytes can go on; None for: not now."""
        if way.ended or way.towards_broker in self._stalled:
            return None
        if way.held:
            return way.sink.fileno(), select.POLLOUT
        return None if self._rest(way) > 0 else (way.source.fileno(), select.POLLIN)

    def _rest(self, way: _Way) -> float:
        """Seconds for which nothing more is read of a slow way."""
        return way.rests_until - time.monotonic() if way.towards_broker in self._rates else 0.0

    def _shortest_rest(self) -> float | None:
        """In milliseconds; None if nobody rests."""
        rests = [self._rest(way) for link in self._links for way in link.ways]
        return min((rest * 1000 + 1 for rest in rests if rest > 0), default=None)

    def _turn(self, ready: dict[int, int]) -> None:
        for end in [end for end in self._last_reads if end.fileno() in ready]:
            self._read_last(end)
        for link in list(self._links):
            self._move(link, ready)
        if self._listener.fileno() in ready:
            self._take_connections()
        if self._bell.fileno() in ready:
            self._obey()

    def _obey(self) -> None:
        self._bell.recv(1)
        future, command = self._commands.get()
        self._take_connections()  # to the client they are open already
        future.set_result(command())

    def _take_connections(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._take(self._listener.accept()[0])

    def _take(self, client: socket.socket) -> None:
        if self._refusing:
            _reset(client)
            return
        try:
            broker = socket.create_connection(self._broker, _IO_TIMEOUT)
        except OSError:  # the broker is down, and so is the way to it
            _reset(client)
            return
        for end in (client, broker):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._links.append(_Link(client, broker))

    def _move(self, link: _Link, ready: dict[int, int]) -> None:
        """Forward what can be forwarded of a connection; end it when it has ended."""
        try:
            for way in link.ways:
                if link not in self._links:  # a trap has cut it; its last reads go on
                    return
                self._move_way(way, ready)
        except OSError:  # one side has reset it, so the other is told the same
            link.reset()
            self._forget(link)
        if link.done and link in self._links:
            link.close()
            self._forget(link)

    def _forget(self, link: _Link) -> None:
        with suppress(ValueError):  # a trap may have cut it meanwhile
            self._links.remove(link)

    def _move_way(self, way: _Way, ready: dict[int, int]) -> None:
        descriptor, event = self._awaited(way) or (None, 0)
        if descriptor not in ready or not ready[descriptor] & (event | _ENDED):
            return
        with suppress(BlockingIOError):
            if way.held:
                way.give()
            elif chunk := way.take(self._most(way)):
                self._pass_on(way, chunk)

    def _most(self, way: _Way) -> int:
        """How many bytes to read at once."""
        rate = self._rates.get(way.towards_broker)
        return _CHUNK if rate is None else max(1, min(_CHUNK, int(rate / _SLOW_CHUNKS)))

    def _pass_on(self, way: _Way, chunk: bytes) -> None:
        way.held = chunk
        if rate := self._rates.get(way.towards_broker):
            way.rests_until = time.monotonic() + len(chunk) / rate
        for trap in self._traps:
            if trap.predicate(chunk, way.towards_broker):
                self._spring(trap, way)
                return
        way.give()

    def _spring(self, trap: _Trap, way: _Way) -> None:
        self._traps.remove(trap)
        self._cut(way if trap.after else None)
        trap.sprung.set()

    def _cut(self, last: _Way | None = None) -> None:
        """Reset all; but the sink of the last way shall have everything first."""
        for link in self._links:
            if last in link.ways:
                with suppress(OSError):
                    last.give_all_and_end()
                # Closed with something unread it would send RST, and drop what is on its way.
                self._last_reads.append(last.sink)
                _reset(last.source)
            else:
                link.reset()
        self._links.clear()

    def _read_last(self, end: socket.socket) -> None:
        with suppress(OSError):
            if end.recv(_CHUNK):
                return
        end.close()
        self._last_reads.remove(end)

    def _resume(self) -> None:
        self._stalled.clear()
        self._rates.clear()


def _ways(towards_broker: bool, towards_client: bool) -> set[bool]:
    """The ways as they are told apart here: True is towards the broker."""
    return {way for way, chosen in ((True, towards_broker), (False, towards_client)) if chosen}


def _reset(end: socket.socket) -> None:
    """Close it with RST, not with FIN."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    end.close()
