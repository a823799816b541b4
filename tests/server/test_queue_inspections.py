"""When the request queue is inspected."""

from math import inf

from qam._server.queue_inspections import QueueInspections


def test_the_queue_is_inspected_ever_again_and_sooner_where_there_is_a_reason() -> None:
    inspections = QueueInspections()
    assert inspections.next_due(calm=False) == -inf
    inspections.done(now=100.0)
    assert inspections.next_due(calm=False) == 101.0
    assert inspections.next_due(calm=True) == 110.0
    inspections.hasten()
    assert inspections.next_due(calm=True) == 100.05
    inspections.done(now=100.1)
    assert inspections.next_due(calm=True) == 110.1
