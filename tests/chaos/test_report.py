"""The verdict of the soak finds everything that must not be; the table counts what was."""

from dataclasses import replace

import pytest

from tests.chaos.calls import answer_to
from tests.chaos.journal import Entry
from tests.chaos.outcomes import HUNG, RAISED_AS_IT_SHOULD, RIGHT, WRONG, Outcome
from tests.chaos.report import Evidence, find_violations, table

TOKEN = "client-1.sync-1.1"
RUN = (Entry(TOKEN, 4711, "begin", 1.0), Entry(TOKEN, 4711, "end", 1.1))
NOT_RUN: tuple[Entry, ...] = ()
ANSWERED = Outcome(TOKEN, "sync", "work", RIGHT, None, 0.1)
CLEAN = Evidence([ANSWERED], {TOKEN: RUN}, reply_queues_left=[])


def failed(error: str, executed: str) -> Outcome:
    return replace(ANSWERED, outcome=error, executed=executed, text="said the library")


def verdict(*outcomes: Outcome, runs: tuple[Entry, ...] = RUN, **more: object) -> list[str]:
    evidence = Evidence(outcomes, {TOKEN: runs} if runs else {}, **more)  # type: ignore[arg-type]
    return [violation.what for violation in find_violations(evidence)]


def test_a_call_that_ran_once_and_was_answered_is_clean() -> None:
    assert verdict(ANSWERED) == []
    assert verdict(replace(ANSWERED, method="fail", outcome=RAISED_AS_IT_SHOULD)) == []


@pytest.mark.parametrize("runs", [NOT_RUN, RUN[:1], RUN])
@pytest.mark.parametrize(
    "error", ["QAMConnectionException", "QAMServerLostException", "QAMTimeoutException"]
)
def test_an_error_that_does_not_know_whether_its_method_ran_is_clean(
    error: str, runs: tuple[Entry, ...]
) -> None:
    assert verdict(failed(error, "unknown"), runs=runs) == []


def test_errors_that_know_it_and_are_right_are_clean() -> None:
    assert verdict(failed("QAMTimeoutException", "no"), runs=NOT_RUN) == []
    assert verdict(failed("QAMConnectionException", "yes"), runs=RUN) == []


def test_a_call_that_never_ends_is_found() -> None:
    assert verdict(replace(ANSWERED, outcome=HUNG)) == ["hung"]


@pytest.mark.parametrize("outcome", [ANSWERED, failed("QAMTimeoutException", "unknown")])
def test_a_call_that_ends_long_after_its_timeout_is_found(outcome: Outcome) -> None:
    assert verdict(replace(outcome, seconds=74.9)) == []
    assert verdict(replace(outcome, seconds=75.1)) == ["hung"]


def test_a_wrong_answer_is_found() -> None:
    assert verdict(replace(ANSWERED, outcome=WRONG)) == ["wrong answer"]


@pytest.mark.parametrize("runs", [RUN[:1], RUN])
def test_no_as_executed_is_found_to_be_a_lie_where_the_method_began(
    runs: tuple[Entry, ...],
) -> None:
    [what] = verdict(failed("QAMTimeoutException", "no"), runs=runs)
    assert what == 'a lie: executed is "no", but it ran'


def test_yes_as_executed_is_found_to_be_a_lie_where_the_method_did_not_begin() -> None:
    [what] = verdict(failed("QAMConnectionException", "yes"), runs=NOT_RUN)
    assert what == 'a lie: executed is "yes", but it did not run'


@pytest.mark.parametrize("runs", [NOT_RUN, RUN[:1]])
def test_an_answer_of_a_method_that_did_not_run_to_its_end_is_found(
    runs: tuple[Entry, ...],
) -> None:
    assert verdict(ANSWERED, runs=runs) == ["answered, but did not run"]


@pytest.mark.parametrize("method", ["work", "fail"])
@pytest.mark.parametrize("outcome", [ANSWERED, failed("QAMServerLostException", "unknown")])
def test_a_method_that_ran_twice_is_found(method: str, outcome: Outcome) -> None:
    assert verdict(replace(outcome, method=method), runs=RUN * 2) == ["ran too often"]


def test_a_second_run_that_only_began_is_found() -> None:
    assert verdict(ANSWERED, runs=RUN + RUN[:1]) == ["ran too often"]


def test_an_idempotent_method_may_run_three_times_and_no_more() -> None:
    again = replace(ANSWERED, method="again")
    assert verdict(again, runs=RUN * 3) == []
    assert verdict(again, runs=RUN * 4) == ["ran too often"]


def test_a_call_that_ended_twice_is_found() -> None:
    assert verdict(ANSWERED, ANSWERED) == ["ended more than once"]


def test_a_run_whose_call_never_ended_is_found() -> None:
    others = replace(ANSWERED, token="other")
    evidence = Evidence([others], {TOKEN: RUN, "other": RUN})
    [violation] = find_violations(evidence)
    assert (violation.what, violation.whose) == ("ran, but its call has no outcome", TOKEN)


@pytest.mark.parametrize(
    "error",
    ["QAMClosedException", "QAMServerNotFoundException", "QAMMethodNotFoundException"],
)
def test_an_error_that_no_fault_explains_is_found(error: str) -> None:
    assert verdict(failed(error, "no"), runs=NOT_RUN) == ["an error that nothing explains"]


def test_any_error_without_faults_is_found() -> None:
    error = failed("QAMServerLostException", "unknown")
    assert verdict(error, calm=True) == ["an error that nothing explains"]
    assert verdict(ANSWERED, calm=True) == []


def test_a_soak_without_calls_is_no_success() -> None:
    assert verdict(runs=NOT_RUN) == ["no call was made"]


def test_what_a_process_leaves_or_says_is_found() -> None:
    assert verdict(ANSWERED, bad_ends={"server-1": "exit code 1"}) == ["a process ended badly"]
    assert verdict(ANSWERED, stderr={"server-1": "Traceback"}) == ["wrote to its stderr"]
    assert verdict(ANSWERED, threads_left={"client-1": ["one"]}) == ["threads left after close"]
    assert verdict(ANSWERED, threads_left={"client-1": []}) == []
    assert verdict(ANSWERED, reply_queues_left=["q"]) == ["reply queue left in the broker"]


def test_a_violation_shows_what_was_told_and_what_the_journal_says() -> None:
    error = failed("QAMTimeoutException", "no")
    [violation] = find_violations(replace(CLEAN, outcomes=[error]))
    assert str(violation).splitlines() == [
        'a lie: executed is "no", but it ran: client-1.sync-1.1',
        "    sync call of work() ended after 0.100 s: "
        "QAMTimeoutException, executed=no: said the library",
        "    client-1.sync-1.1 4711 begin 1.000",
        "    client-1.sync-1.1 4711 end 1.100",
    ]


def test_all_violations_are_named_each_with_its_own_token() -> None:
    tokens = [f"token-{number}" for number in range(3)]
    outcomes = [replace(ANSWERED, token=token, outcome=WRONG) for token in tokens]
    evidence = Evidence(outcomes, dict.fromkeys(tokens, RUN))
    assert [violation.whose for violation in find_violations(evidence)] == tokens


def test_the_table_counts_what_was() -> None:
    outcomes = [
        *(replace(ANSWERED, seconds=number / 1000) for number in range(1, 201)),
        replace(ANSWERED, method="fail", outcome=RAISED_AS_IT_SHOULD),
        replace(ANSWERED, outcome=WRONG),
        replace(failed("QAMTimeoutException", "no"), token="other", seconds=60.25),
        failed("QAMTimeoutException", "unknown"),
        failed("QAMTimeoutException", "unknown"),
    ]
    lines = table(replace(CLEAN, outcomes=outcomes, faults={"memory alarm": 2})).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "calls made 205",
        "right results 201",
        "values 200",
        "the method's own exception 1",
        "wrong answers 1",
        "hung calls 0",
        "errors 3",
        "QAMTimeoutException, executed no 1",
        "though the method had run to its end 0",
        "QAMTimeoutException, executed unknown 2",
        "though the method had run to its end 2",
        "seconds, p50 0.100",
        "seconds, p99 0.199",
        "seconds, longest call 60.250",
        "faults 2",
        "memory alarm 2",
    ]
    assert len({len(line) for line in lines}) == 1


def test_the_table_of_nothing_is_a_table() -> None:
    assert "calls made" in table(Evidence([], {}))


def test_an_answer_is_right_for_one_token_only() -> None:
    assert answer_to("one") != answer_to("other")
