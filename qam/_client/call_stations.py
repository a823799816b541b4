"""Notes the stations that the calls of a proxy pass, at the level DEBUG only."""

import logging
from collections.abc import Iterable

from qam._broker.fates import Fate
from qam._client.pending_call import PendingCall
from qam._client.result_list import Outcome, ResultList
from qam._common.stations import Stations
from qam._protocol.correlation import correlation_id_of

_AFTER_FATE = {
    Fate.CONFIRMED: "confirmed",
    Fate.RETURNED: "returned, since no queue takes it",
    Fate.REFUSED: "refused by the broker",
    Fate.UNKNOWN: "not confirmed before the connection was lost",
    Fate.CULPRIT: "refused by the broker, which closed the channel",
}


class CallStations(Stations):
    """The stations of one proxy's calls, from the method queue to the outcome.

    :param log: the logger for the stations.
    :param client_id: the proxy's id on the wire, a part of each correlation id.
    :param results: knows which calls are open.
    :param persistent: whether the broker confirms requests.
    """

    def __init__(
        self, log: logging.Logger, client_id: str, results: ResultList, persistent: bool
    ) -> None:
        super().__init__(log)
        self._client_id = client_id
        self._results = results
        self._persistent = persistent

    def queued(self, call: PendingCall) -> None:
        """*call* is about to be queued, or to wait for room in the queue."""
        self._note(call, "queued")

    def written(self, calls: Iterable[PendingCall]) -> None:
        """The requests of *calls* are about to be written."""
        for call in calls:
            self._note(call, "written" if call.times_written == 1 else "written again")

    def have_fate(self, fate: Fate, calls: Iterable[PendingCall]) -> None:
        """The requests of *calls* have their *fate*."""
        for call in calls:
            is_last = fate is Fate.CONFIRMED and not self._results.is_open(call.call_id)
            self._note(call, _AFTER_FATE[fate], is_last)

    def received(self, outcomes: Iterable[Outcome]) -> None:
        """Replies were received, some perhaps after the end of their calls."""
        for call_id, _ in outcomes:
            if call_id is not None:
                is_last = not self._results.is_open(call_id)
                self.note("received", self._correlation_id(call_id), last=is_last)

    def ended(self, call: PendingCall, how: str) -> None:
        """The caller of *call* gets its outcome: log that; *how* follows "ended"."""
        # The confirm of a persistent request may still come.
        is_last = call.confirmed or not (self._persistent and call.times_written)
        self._note(call, f"ended {how}", is_last)
        if not self._results.is_in_use_here:
            self.log()

    def _note(self, call: PendingCall, name: str, last: bool = False) -> None:
        self.note(name, self._correlation_id(call.call_id), call.method_name, last)

    def _correlation_id(self, call_id: int) -> str:
        return correlation_id_of(self._client_id, call_id)
