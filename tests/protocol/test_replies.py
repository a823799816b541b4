import pickle
import weakref
from pickletools import genops
from typing import Any

import pytest

from qam._broker.messages import Delivery
from qam._common import error_texts
from qam._common.error_texts import describe
from qam._protocol.bodies import decode
from qam._protocol.properties import properties
from qam._protocol.replies import (
    METHOD_NOT_FOUND,
    NOT_INTERNAL,
    REQUEST_UNREADABLE,
    RESULT_NOT_SERIALIZABLE,
    SERVER_LOST,
    bare_exception_reply,
    decode_reply,
    exception_reply,
    internal_reply,
    is_exception_reply,
    outcome,
    result_reply,
)
from qam._protocol.requests import APPLY, Request, apply_message
from qam._serialization.refusals import Receiver
from qam._serialization.serializers import PickleSerializer, Serializer, get_serializer
from qam.exceptions import (
    QAMException,
    QAMMethodNotFoundException,
    QAMSerializationException,
    QAMServerLostException,
    QAMTimeoutException,
    RemoteException,
)

REQUEST = {"id": 7, "method_name": "add", "routing_key": "key", "params": (2, 3)}
CLIENT = Receiver("client", "a1")
SERVER = Receiver("server", "shop")
PICKLE = get_serializer("pickle")
JSON = get_serializer("json")


class SoldOutError(Exception):
    """An exception of the server's own, which its client has too."""


class MoodyError(Exception):
    """Is called with other arguments than its args, so plain pickle can't build it."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


class Changeling(Exception):
    """Comes out of a pickle as something else."""

    def __reduce__(self) -> Any:
        return ValueError, ("changed",)


class MuteError(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def delivery(body: bytes, serializer: Serializer = PICKLE) -> Delivery:
    return Delivery(body, 1, properties=properties(serializer))


def raised(error: BaseException) -> BaseException:
    """*error* with a traceback, as a method of a server raises it."""

    def method() -> None:
        raise error

    try:
        method()
    except BaseException as caught:
        return caught
    raise AssertionError


def arrived(error: BaseException, serializer: Serializer) -> Exception:
    """What a caller gets when a method raises *error*."""
    body = serializer.encode(exception_reply(7, raised(error), serializer))
    with pytest.raises(Exception) as caught:  # noqa: PT011 - it is looked at below
        outcome(decode_reply(serializer, delivery(body, serializer), CLIENT))
    return caught.value


# --- decoding ---------------------------------------------------------------


@pytest.mark.parametrize("serializer", [PICKLE, JSON], ids=lambda each: each.name)
def test_a_dict_in_the_right_content_type_is_decoded(serializer: Serializer) -> None:
    body = {"id": 7, "params": [1]}

    assert decode(serializer, delivery(serializer.encode(body), serializer), SERVER) == body


def test_another_content_type_is_refused_before_anything_is_read() -> None:
    message = delivery(b"this is no JSON", PICKLE)

    with pytest.raises(
        QAMSerializationException, match=r"configure the same serializer on both sides"
    ) as refused:
        decode(JSON, message, SERVER)

    assert "application/x-python-serialize" in str(refused.value)


def test_a_message_without_content_type_is_refused() -> None:
    with pytest.raises(QAMSerializationException, match="None"):
        decode(JSON, Delivery(b"{}", 1), SERVER)


@pytest.mark.parametrize("serializer", [PICKLE, JSON], ids=lambda each: each.name)
def test_what_can_not_be_decoded_is_refused_with_the_reason(serializer: Serializer) -> None:
    with pytest.raises(QAMSerializationException, match=f"as {serializer.name}: ") as refused:
        decode(serializer, delivery(b"\xff\xff", serializer), SERVER)

    assert refused.value.__cause__ is not None


@pytest.mark.parametrize("serializer", [PICKLE, JSON], ids=lambda each: each.name)
def test_a_body_that_is_no_dict_is_refused(serializer: Serializer) -> None:
    with pytest.raises(QAMSerializationException, match="is a list, not a dict"):
        decode(serializer, delivery(serializer.encode([1]), serializer), SERVER)


def test_a_reply_that_the_server_wrote_in_another_serializer_says_that_nothing_ran() -> None:
    with pytest.raises(QAMSerializationException) as refused:
        decode_reply(JSON, delivery(b"{}", PICKLE), CLIENT)

    assert refused.value.executed == "no"


def test_a_reply_that_can_not_be_decoded_says_that_the_method_ran() -> None:
    with pytest.raises(QAMSerializationException) as refused:
        decode_reply(PICKLE, delivery(b"\xff\xff"), CLIENT)

    assert refused.value.executed == "yes"


def test_a_result_of_a_class_that_the_client_does_not_have_is_refused_with_its_name() -> None:
    # given
    body = PICKLE.encode(result_reply(7, [SoldOutError("tea")]))
    body = body.replace(__name__.encode(), b"x" * len(__name__))

    # when
    words = r"the client 'a1' does not trust x+\.SoldOutError: call"
    with pytest.raises(QAMSerializationException, match=words) as refused:
        decode_reply(PICKLE, delivery(body), CLIENT)

    # then
    assert refused.value.executed == "yes"


def test_an_error_is_described_in_one_line_by_type_and_text() -> None:
    assert describe(ValueError("bad")) == "ValueError: bad"
    assert describe(ValueError()) == "ValueError"


# --- requests ---------------------------------------------------------------


@pytest.mark.parametrize("params", [(2, 3), [2, 3], [], ()])
def test_a_request_is_understood(params: Any) -> None:
    request = Request.from_body(REQUEST | {"params": params, "more": "ignored"})

    assert request == Request(7, "add", "key", params)


def test_the_id_of_a_request_may_be_a_number_a_text_or_missing() -> None:
    assert Request.from_body(REQUEST | {"id": "x"}).id == "x"
    assert Request.from_body({k: v for k, v in REQUEST.items() if k != "id"}).id is None


@pytest.mark.parametrize("id", [2**64, -(10**100), "x" * 256, b"x", 1.5, [1]])
def test_an_id_that_is_too_large_to_be_sent_back_is_refused(id: Any) -> None:
    with pytest.raises(QAMSerializationException, match="an id "):
        Request.from_body(REQUEST | {"id": id})


@pytest.mark.parametrize("field", ["method_name", "routing_key", "params"])
@pytest.mark.parametrize("value", [None, 1, b"add", {"a": 1}])
def test_a_request_with_a_field_of_a_wrong_type_is_refused(field: str, value: Any) -> None:
    with pytest.raises(QAMSerializationException, match="a request must have"):
        Request.from_body(REQUEST | {field: value})


@pytest.mark.parametrize("field", ["method_name", "routing_key", "params"])
def test_a_request_without_a_field_is_refused(field: str) -> None:
    with pytest.raises(QAMSerializationException, match="a request must have"):
        Request.from_body({key: value for key, value in REQUEST.items() if key != field})


def test_params_that_are_a_text_are_no_list() -> None:
    with pytest.raises(QAMSerializationException):
        Request.from_body(REQUEST | {"params": "ab"})


def test_a_call_without_keyword_arguments_travels_as_it_is() -> None:
    assert apply_message("add", (2, 3), {}) == ("add", (2, 3))


def test_a_call_with_keyword_arguments_travels_under_a_name_that_old_servers_refuse() -> None:
    assert apply_message("add", [2], {"b": 3}) == ("system.apply", ("add", (2,), {"b": 3}))
    assert APPLY == "system.apply"


# --- replies ----------------------------------------------------------------


def test_a_result_has_the_fields_that_deployed_clients_read() -> None:
    reply = result_reply(7, [5])

    assert reply == {"id": 7, "result": [5], "exception": False, "internal_exception": -1}
    assert outcome(reply) == [5]


@pytest.mark.parametrize(
    ("code", "cls", "executed"),
    [
        (METHOD_NOT_FOUND, QAMMethodNotFoundException, "no"),
        (SERVER_LOST, QAMServerLostException, "unknown"),
        (REQUEST_UNREADABLE, QAMSerializationException, "no"),
        (RESULT_NOT_SERIALIZABLE, QAMSerializationException, "yes"),
        (99, QAMException, "unknown"),
    ],
)
def test_what_the_server_could_not_do_is_raised_as_what_it_is(
    code: int, cls: type[QAMException], executed: str
) -> None:
    reply = internal_reply(7, code, "the reason")
    assert reply == {
        "id": 7,
        "result": "the reason",
        "exception": True,
        "internal_exception": code,
    }

    with pytest.raises(QAMException, match="the reason") as caught:
        outcome(reply)

    assert type(caught.value) is cls
    assert caught.value.executed == executed


def test_the_codes_on_the_wire_never_change() -> None:
    assert (NOT_INTERNAL, METHOD_NOT_FOUND) == (-1, 1)
    assert (SERVER_LOST, REQUEST_UNREADABLE, RESULT_NOT_SERIALIZABLE) == (2, 3, 4)


@pytest.mark.parametrize("serializer", [PICKLE, JSON], ids=lambda each: each.name)
def test_an_exception_with_odd_attributes_has_a_traceback_all_the_same(
    serializer: Serializer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> list[str]:
        raise TypeError("odd")

    monkeypatch.setattr(error_texts.traceback, "format_exception", fail)

    (note,) = arrived(ValueError("bad"), serializer).__notes__

    assert "in method\n" in note
    assert note.endswith("ValueError: bad")


@pytest.mark.parametrize("serializer", [PICKLE, JSON], ids=lambda each: each.name)
@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad", 3),
        KeyError("k"),
        FileNotFoundError(2, "no such"),
        ZeroDivisionError(),
        TimeoutError("late"),
    ],
    ids=repr,
)
def test_a_builtin_exception_arrives_as_its_own_type(
    serializer: Serializer, error: Exception
) -> None:
    same = arrived(error, serializer)

    assert type(same) is type(error)
    assert same.args == error.args
    assert str(same) == str(error)


@pytest.mark.parametrize("serializer", [PICKLE, JSON], ids=lambda each: each.name)
def test_the_remote_traceback_is_a_note_without_this_librarys_frame(
    serializer: Serializer,
) -> None:
    (note,) = arrived(ValueError("bad"), serializer).__notes__

    assert note.startswith("Remote traceback:\nTraceback (most recent call last):\n")
    assert "in method\n" in note
    assert "in raised\n" not in note
    assert note.endswith("ValueError: bad")


def test_an_exception_of_ones_own_arrives_as_its_own_type_by_pickle() -> None:
    error = arrived(SoldOutError("tea"), PICKLE)

    assert type(error) is SoldOutError
    assert error.args == ("tea",)


def test_an_exception_of_ones_own_arrives_as_remote_exception_by_json() -> None:
    error = arrived(SoldOutError("tea", 3), JSON)

    assert type(error) is RemoteException
    assert error.type_name == f"{__name__}.SoldOutError"
    assert error.remote_args == ("tea", 3)
    assert error.text == "('tea', 3)"


@pytest.mark.parametrize(
    "error",
    [Changeling("a b"), ValueError(lambda: 0)],
    ids=["Changeling", "unpicklable"],
)
def test_what_does_not_survive_a_pickle_arrives_as_remote_exception_with_its_text(
    error: Exception,
) -> None:
    same = arrived(error, PICKLE)

    assert type(same) is RemoteException
    assert same.type_name.endswith(type(error).__name__)
    assert same.text == str(error)


def test_an_exception_whose_type_the_client_does_not_have_arrives_as_remote_exception() -> None:
    # given: the module exists where the server is
    body = PICKLE.encode(exception_reply(7, raised(SoldOutError("tea")), PICKLE))
    body = body.replace(__name__.encode(), b"x" * len(__name__))

    # when
    with pytest.raises(RemoteException) as caught:
        outcome(decode_reply(PICKLE, delivery(body), CLIENT))

    # then
    assert caught.value.text == "tea"


@pytest.mark.parametrize("serializer", [PICKLE, JSON], ids=lambda each: each.name)
@pytest.mark.parametrize(
    "error",
    [
        *(SystemExit(3), KeyboardInterrupt("stop"), GeneratorExit("x"), StopIteration(3)),
        *(StopAsyncIteration(), QAMTimeoutException("inner")),
    ],
    ids=repr,
)
def test_neither_an_exit_nor_an_exception_of_this_library_is_raised_in_the_client(
    serializer: Serializer, error: BaseException
) -> None:
    same = arrived(error, serializer)

    assert type(same) is RemoteException
    assert same.type_name == f"{type(error).__module__}.{type(error).__qualname__}"
    assert same.text == str(error)


@pytest.mark.parametrize("error", [SystemExit(3), QAMTimeoutException("inner")], ids=repr)
def test_a_reply_with_such_an_object_in_it_does_not_get_it_raised_either(
    error: BaseException,
) -> None:
    reply = result_reply(7, error) | {"exception": True}

    with pytest.raises(RemoteException) as caught:
        outcome(reply)

    assert caught.value.type_name == f"{type(error).__module__}.{type(error).__qualname__}"
    assert caught.value.text == str(error)


@pytest.mark.parametrize("serializer", [PICKLE, JSON], ids=lambda each: each.name)
def test_an_exception_without_a_text_arrives(serializer: Serializer) -> None:
    error = arrived(MuteError("x"), serializer)

    assert type(error) in (MuteError, RemoteException)


@pytest.mark.parametrize(
    "error",
    [
        UnicodeDecodeError("ascii", b"\xff", 0, 1, "no"),
        ExceptionGroup("several", [ValueError("bad")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_builtin_that_can_not_be_built_from_json_arrives_as_remote_exception(
    error: Exception,
) -> None:
    same = arrived(error, JSON)

    assert type(same) in (RemoteException, type(error))
    assert str(error) in str(same)


def test_an_argument_that_json_can_not_carry_arrives_as_its_repr() -> None:
    error = arrived(ValueError("bad", 1 + 2j), JSON)

    assert error.args == ("bad", "(1+2j)")


def test_a_syntax_error_arrives_by_json_with_its_place() -> None:
    error = arrived(SyntaxError("bad", ("file", 3, 4, "text")), JSON)

    assert isinstance(error, SyntaxError)
    assert (error.filename, error.lineno, error.offset, error.text) == ("file", 3, 4, "text")


def test_a_trusted_exception_is_sent_with_all_that_it_has() -> None:
    # given attributes that no other exception may have
    error = SoldOutError("tea")
    error.inner = SoldOutError("inner")  # type: ignore[attr-defined]
    error.items = {(1, 2): [range(3)]}  # type: ignore[attr-defined]

    # when
    same = arrived(error, get_serializer("pickle", trusted=[SoldOutError]))

    # then
    assert type(same) is type(same.inner) is SoldOutError  # type: ignore[attr-defined]
    assert same.items == error.items  # type: ignore[attr-defined]


@pytest.mark.parametrize("send_traceback", [True, False])
def test_a_trusted_exception_that_its_own_code_can_not_build_arrives_as_remote_exception(
    send_traceback: bool,
) -> None:
    # given a class that server and caller trust, so that both call it with its args
    serializer = get_serializer("pickle", trusted=[MoodyError])
    error = MoodyError("a", "b")
    error.add_note("a note")

    # when
    reply = exception_reply(7, error, serializer, send_traceback=send_traceback)
    with pytest.raises(RemoteException) as caught:
        outcome(decode_reply(serializer, delivery(serializer.encode(reply)), CLIENT))

    # then
    assert caught.value.type_name == f"{__name__}.MoodyError"
    assert (caught.value.args, caught.value.text) == (("a b",), "a b")
    assert caught.value.__notes__[0] == "a note"


class NewerError(Exception):
    """Has another constructor at the server than at the client."""

    is_older = False

    def __init__(self, number: int) -> None:
        if self.is_older:
            raise TypeError("this version takes two arguments")
        super().__init__(number)

    def __reduce__(self) -> Any:
        return NewerError, self.args


def test_a_trusted_exception_that_the_client_can_not_build_is_told_by_type_text_and_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given
    serializer = get_serializer("pickle", trusted=[NewerError])
    reply = exception_reply(7, raised(NewerError(3)), serializer)
    body = serializer.encode(reply)

    # when
    monkeypatch.setattr(NewerError, "is_older", True)
    with pytest.raises(RemoteException) as caught:
        outcome(decode_reply(serializer, delivery(body), CLIENT))

    # then
    assert (caught.value.type_name, caught.value.text) == (f"{__name__}.NewerError", "3")
    assert "in method" in caught.value.__notes__[0]


class Unreadable:
    """Can't be built."""

    def __init__(self, held: Any) -> None:
        held.append(weakref.ref(self))
        raise TypeError("no such version")


def test_what_was_built_of_an_undecodable_reply_is_freed_before_it_is_read_again() -> None:
    # given
    held: list[Any] = []
    seen: list[list[Any]] = []

    class Watching(PickleSerializer):
        def decode(self, body: bytes, strangers: Any = None) -> Any:
            Unreadable(held)

        def decode_envelope(self, body: bytes) -> Any:
            seen.append([each() for each in held])
            return super().decode_envelope(body)

    reply = exception_reply(7, raised(ValueError("tea")), PICKLE)

    # when
    with pytest.raises(RemoteException):
        outcome(decode_reply(Watching(), delivery(PICKLE.encode(reply)), CLIENT))

    # then
    assert seen == [[None]]


def test_a_remote_exception_of_another_type_than_the_reply_says_is_of_that_type() -> None:
    reply = result_reply(7, RemoteException("shop.SoldOut", ("tea",), "no tea"))

    with pytest.raises(RemoteException) as caught:
        outcome(reply | {"exception": True, "exception_type": "shop.Closed"})

    assert caught.value.type_name == "shop.Closed"
    assert (caught.value.args, caught.value.text) == (("tea",), "no tea")


@pytest.mark.parametrize("serializer", [PICKLE, JSON], ids=lambda each: each.name)
def test_the_reply_of_an_exception_is_known_as_one(serializer: Serializer) -> None:
    assert is_exception_reply(exception_reply(7, ValueError("bad"), serializer))
    assert not is_exception_reply(internal_reply(7, SERVER_LOST, "the reason"))
    assert not is_exception_reply(result_reply(7, "x"))


def test_a_name_that_is_no_exception_builds_nothing() -> None:
    for name in ("builtins.print", "builtins.int", "builtins.SystemExit", "os.error", "x"):
        reply = result_reply(7, ["a"]) | {"exception": True, "exception_type": name}

        with pytest.raises(RemoteException) as caught:
            outcome(reply)

        assert caught.value.type_name == name
        assert caught.value.remote_args == ("a",)


def test_a_reply_is_made_for_an_exception_that_was_never_raised() -> None:
    reply = exception_reply(7, ValueError("bad"), PICKLE)

    assert reply["traceback"] == "ValueError: bad\n"


def test_the_exceptions_of_deployed_peers_are_understood() -> None:
    # given
    by_pickle = result_reply(7, SoldOutError("tea")) | {"exception": True}
    by_json = result_reply(7, ["tea", 3]) | {"exception": True}
    by_neither = result_reply(7, "tea") | {"exception": True}

    # when
    with pytest.raises(SoldOutError) as object_raised:
        outcome(pickle.loads(pickle.dumps(by_pickle, 2)))
    with pytest.raises(Exception) as args_raised:  # noqa: PT011 - it is looked at below
        outcome(by_json)
    with pytest.raises(Exception, match=r"^tea$") as text_raised:
        outcome(by_neither)

    # then
    assert object_raised.value.args == ("tea",)
    assert not hasattr(object_raised.value, "__notes__")
    assert type(args_raised.value) is Exception
    assert args_raised.value.args == ("tea", 3)
    assert type(text_raised.value) is Exception


def test_a_reply_without_its_optional_fields_is_a_result() -> None:
    assert outcome({"result": 5}) == 5
    assert outcome({"id": 7}) is None


def test_a_code_that_is_no_number_is_not_internal() -> None:
    reply = {"id": 7, "result": ["x"], "exception": True, "internal_exception": None}

    with pytest.raises(Exception, match=r"^x$") as caught:
        outcome(reply)

    assert type(caught.value) is Exception


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("exception", "yes", "int"),
        ("internal_exception", "3", "int"),
        ("exception_type", 5, "str"),
        ("exception_text", b"text", "str"),
        ("exception_args", ["x"], "tuple"),
        ("traceback", 1.5, "str"),
    ],
)
def test_a_reply_with_a_field_of_a_wrong_type_is_refused(field: str, value: Any, kind: str) -> None:
    body = PICKLE.encode(result_reply(7, "x") | {field: value})

    with pytest.raises(QAMSerializationException, match=f"{field!r} is no {kind}") as refused:
        decode_reply(PICKLE, delivery(body), CLIENT)

    assert refused.value.executed == "yes"


@pytest.mark.parametrize(
    "field",
    ["exception", "internal_exception", "exception_type", "exception_text", "traceback"],
)
def test_a_field_of_a_reply_may_be_none(field: str) -> None:
    body = JSON.encode(result_reply(7, "x") | {field: None})

    assert outcome(decode_reply(JSON, delivery(body, JSON), CLIENT)) == "x"


@pytest.mark.parametrize("text", ["the reason", None, 10**5000], ids=["text", "none", "number"])
@pytest.mark.parametrize("code", [1, 99, 10**5000], ids=["known", "unknown", "without end"])
def test_whatever_code_a_server_sends_the_call_ends_with_an_exception_of_this_library(
    code: int, text: Any
) -> None:
    with pytest.raises(QAMException) as caught:
        outcome({"id": 7, "result": text, "exception": True, "internal_exception": code})
    assert len(str(caught.value)) < 100


def test_an_exception_that_python_2_does_not_have_reaches_such_a_client_all_the_same() -> None:
    reply = exception_reply(7, raised(RecursionError("too deep")), PICKLE)

    body = PICKLE.encode(reply, like=b"\x80\x02}q\x00.")

    imported = {argument for opcode, argument, _ in genops(body) if opcode.name == "GLOBAL"}
    assert imported <= {"exceptions Exception", "exceptions RuntimeError"}


def test_a_bare_reply_tells_of_an_exception_without_running_its_code() -> None:
    class Acting(Exception):
        def __str__(self) -> str:
            raise AssertionError("its code runs")

        __repr__ = __str__

    try:
        raise Acting("x", 5)
    except Acting as error:
        told = bare_exception_reply(7, error, JSON)
        silent = bare_exception_reply(7, error, JSON, send_traceback=False)

    assert is_exception_reply(told)
    assert told["id"] == 7
    assert told["exception_type"].endswith("Acting")
    assert told["exception_text"] == "('x', 5)"
    assert "Acting" in told["traceback"]
    assert "traceback" not in silent
