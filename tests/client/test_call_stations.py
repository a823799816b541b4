"""Which station of a call is its last: after that nothing of it is remembered."""

import logging

import pytest

from qam._broker.fates import Fate
from qam._client.call_stations import CallStations
from qam._client.pending_call import PendingCall
from qam._client.result_list import ResultList


@pytest.mark.parametrize("confirmed_first", [True, False])
def test_it_is_the_later_one_of_its_confirm_and_its_end(confirmed_first: bool) -> None:
    # given a call that was written
    results = ResultList()
    stations = CallStations(logging.getLogger("test"), "client", results, persistent=True)
    call = PendingCall(results.reserve(), results.new_call_id(), times_written=1)
    results.begin(call)
    stations.written([call])

    def confirm() -> None:
        call.confirmed = True
        stations.have_fate(Fate.CONFIRMED, [call])

    def end() -> None:
        results.free(call.slot_id)
        stations.ended(call, "with a result")

    first, last = (confirm, end) if confirmed_first else (end, confirm)
    # when
    first()
    assert stations.remembered == 1
    last()
    # then
    assert stations.remembered == 0
