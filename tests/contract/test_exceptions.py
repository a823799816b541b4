import copy
import pickle

import pytest

from qam import exceptions
from qam.exceptions import (
    QAMClosedException,
    QAMConnectionException,
    QAMException,
    QAMMethodNotFoundException,
    QAMSerializationException,
    QAMServerLostException,
    QAMServerNotFoundException,
    QAMTimeoutException,
    RemoteException,
)

EXECUTED_BY_DEFAULT = [
    (QAMException, "unknown"),
    (QAMMethodNotFoundException, "no"),
    (QAMTimeoutException, "unknown"),
    (QAMConnectionException, "unknown"),
    (QAMServerNotFoundException, "no"),
    (QAMServerLostException, "unknown"),
    (QAMClosedException, "no"),
    (QAMSerializationException, "no"),
]
TYPES = [cls for cls, _ in EXECUTED_BY_DEFAULT]


def test_every_exception_of_the_module_is_in_these_tests() -> None:
    defined = {cls for cls in vars(exceptions).values() if isinstance(cls, type)}

    assert {cls for cls in defined if issubclass(cls, Exception)} == {*TYPES, RemoteException}


@pytest.mark.parametrize(("cls", "executed"), EXECUTED_BY_DEFAULT)
def test_each_type_knows_whether_the_method_ran(cls: type[QAMException], executed: str) -> None:
    error = cls("the text")

    assert isinstance(error, QAMException)
    assert str(error) == "the text"
    assert error.executed == executed
    assert error.safe_to_retry == (executed == "no")


@pytest.mark.parametrize("cls", TYPES)
@pytest.mark.parametrize("executed", ["no", "unknown", "yes"])
def test_whoever_raises_it_may_know_better(cls: type[QAMException], executed: str) -> None:
    error = cls("the text", executed=executed)

    assert error.executed == executed
    assert error.safe_to_retry == (executed == "no")


@pytest.mark.parametrize("cls", TYPES)
@pytest.mark.parametrize("args", [(), ("text",), ("two", "args")])
def test_it_survives_pickle_and_copy_with_its_facts(
    cls: type[QAMException], args: tuple[str, ...]
) -> None:
    error = cls(*args, executed="yes")

    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is cls
        assert twin.args == error.args
        assert twin.executed == "yes"


def test_a_timeout_is_a_timeout_error_and_a_lost_connection_a_connection_error() -> None:
    assert issubclass(QAMTimeoutException, TimeoutError)
    assert issubclass(QAMConnectionException, ConnectionError)


def test_a_remote_exception_is_none_of_this_librarys_and_says_what_was_raised() -> None:
    error = RemoteException("shop.errors.SoldOut", ("tea", 3), "no tea")

    assert not isinstance(error, QAMException)
    assert (error.type_name, error.remote_args, error.text) == (
        "shop.errors.SoldOut",
        ("tea", 3),
        "no tea",
    )
    assert str(error) == "shop.errors.SoldOut: no tea"


def test_a_remote_exception_without_a_text_is_its_type() -> None:
    assert str(RemoteException("shop.errors.SoldOut")) == "shop.errors.SoldOut"


def test_a_remote_exception_survives_pickle_and_copy() -> None:
    error = RemoteException("shop.errors.SoldOut", ("tea", 3), "no tea")

    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is RemoteException
        assert vars(twin) == vars(error)
        assert str(twin) == str(error)
