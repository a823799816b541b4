"""Drives a thread that owns a connection, without the thread: the story gives it its turns."""

from collections.abc import Callable
from typing import Any

from qam._broker.connection_thread import ConnectionThread
from qam.exceptions import QAMConnectionException
from tests.simulation.connection import ModelConnection
from tests.simulation.virtual import Act
from tests.simulation.world import World

#: Seconds that a handshake takes.
_HANDSHAKE = 0.005


class Owner:
    """One of the four: it opens its connection, has its turns, and opens it again.

    What it does in a turn is done by the thread object itself.

    :param name: how it is called in what is told of a story.
    :param on_turn: called after each turn.
    """

    def __init__(self, world: World, thread: ConnectionThread, name: str, on_turn: Act) -> None:
        self._world, self.thread, self.name = world, thread, name
        self._on_turn = on_turn
        self.connection: ModelConnection | None = None
        self.has_ended = self._is_dead = False
        self._opens = False
        self._stands_until = 0.0
        self._unreachable_until = 0.0
        self._turn_at: float | None = None
        self._connections = 0
        waker: Any = thread._waker
        waker.on_wake = self.wake

    # --- faults -----------------------------------------------------------------------

    def stand_still(self, until: float) -> None:
        """Its process is stopped until then."""
        self._stands_until = until

    def be_unreachable(self, until: float) -> None:
        """No connection can be opened before then."""
        self._unreachable_until = until

    def die(self) -> None:
        """Its process is killed."""
        self._is_dead = True
        if self.connection is not None:
            self.connection.cut("its process was killed")
            self.connection = None

    # --- its turns --------------------------------------------------------------------

    def open(self, after: float = _HANDSHAKE) -> None:
        """Open a connection, in so many seconds and as soon as its process goes on."""
        self._opens = True
        self._when_it_goes_on(after, self._open)

    def wake(self) -> None:
        """Have a turn soon."""
        if self.connection is not None:
            self._have_turn(self._world.broker.latency() / 4)
        elif self.thread.kill and self._opens:
            self._when_it_goes_on(0.0, self._end)  # it sleeps between two attempts

    def _have_turn(self, seconds: float) -> None:
        when = self._world.schedule.now + seconds
        if self._turn_at is None or when < self._turn_at - 1e-9:
            self._turn_at = when
            self._when_it_goes_on(seconds, lambda: self._turn(when))

    def _when_it_goes_on(self, seconds: float, act: Act) -> None:
        def go_on() -> None:
            if self._is_dead or self.has_ended:
                return
            if self._world.schedule.now < self._stands_until:
                self._world.schedule.at(self._stands_until, go_on)
            else:
                act()

        self._world.schedule.after(seconds, go_on)

    def _open(self) -> None:
        if self.connection is not None:
            return
        if self.thread.kill:
            self._end()
            return
        try:
            self._world.connect = self._connect
            self.thread._open()
        except QAMConnectionException:
            self.connection = None
            self.open(_HANDSHAKE + self.thread._reconnection.pause_after_failure())
            return
        self._opens = False
        self._have_turn(0.0)

    def _connect(self) -> ModelConnection:
        world = self._world
        if not world.broker.is_up or world.schedule.now < self._unreachable_until:
            raise QAMConnectionException("the broker can't be reached", executed="no")
        self._connections += 1
        name = f"{self.name}.{self._connections}"
        self.connection = ModelConnection(world.broker, name, self.wake, world.traffic(name))
        return self.connection

    def _turn(self, when: float) -> None:
        if self._turn_at != when:
            return  # there was an earlier one
        self._turn_at = None
        if self.connection is None:
            return
        try:
            if self.thread.kill:
                self.thread._before_close(self.connection)
            else:
                due = self.thread._work(self.connection)
        except QAMConnectionException as error:
            self._lost(error)
        else:
            if self.thread.kill:
                self._close()
            elif due is not None and self.connection is not None:
                self._have_turn(max(due, 0.0))
        self._on_turn()

    def _lost(self, error: QAMConnectionException) -> None:
        connection = self.connection
        assert connection is not None
        if not self.thread.kill:
            self.thread._lose(connection, error)
        self._close()

    def _close(self) -> None:
        """As at the end of `ConnectionThread._serve`; then it connects again, or ends."""
        connection, self.connection = self.connection, None
        self.thread._connection = None
        if connection is not None:
            close_quietly(connection.close)
        if self.thread.kill:
            self._end()
        else:
            now = self._world.schedule.now
            self.open(_HANDSHAKE + self.thread._reconnection.pause_after_loss(now))

    def _end(self) -> None:
        if not self.has_ended:
            self.has_ended = True
            self.thread._on_end(None)


def close_quietly(close: Callable[[], None]) -> None:
    """As the connection to a RabbitMQ does: its goodbye never raises."""
    try:
        close()
    except QAMConnectionException:
        return
