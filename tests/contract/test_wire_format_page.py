"""The page of the wire format has each header, property, field and code, and its client works."""

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qam import AMQPCredentials, QAMProxy, QAMServer
from qam._broker.messages import Delivery
from qam._client.pending_call import PendingCall
from qam._client.request_maker import RequestMaker
from qam._common.deadline import Deadline
from qam._protocol import entities, properties, replies, requests
from qam._serialization.serializers import get_serializer
from qam._server.call import Answer, Call
from qam._server.messages import Messages
from tests.contract.test_readme import python_blocks
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import Service, serving

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/topics/wire-format.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "docs/examples/other_client.py"
JSON = get_serializer("json")
HEADERS = {value for value in vars(properties).values() if str(value).startswith("x-qam-")}


def first_cells(below: str) -> list[str]:
    """The names in the first cells of the first table below the line that begins so."""
    table = re.search(r"^\|---.*\n((?:\|.*\n)+)", PAGE[PAGE.index(f"\n{below}") :], re.MULTILINE)
    assert table is not None, below
    return [name for row in table[1].splitlines() for name in spans(row.split(" | ")[0])]


def spans(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def a_request() -> dict[str, Any]:
    """The properties of a request that has all that a client can set."""
    maker = RequestMaker("calc", "label.own", JSON, 1000, persistent=True, user="guest")
    call = PendingCall(
        *(1, 7, "add", b"body", Deadline(5)),
        times_written=1,
        metadata={"trace": "a1"},
        one_way=False,
    )
    return maker.request(call, now=0.0).properties


def a_reply() -> dict[str, Any]:
    call = Call(Delivery(b"{}", 1, properties={"correlation_id": "c:1", "reply_to": "key"}), 1)
    return Messages("calc", JSON).reply(call, Answer("key", b"")).properties


def fields_of_replies() -> set[str]:
    error = replies.exception_reply(1, KeyError("a"), JSON)
    return error.keys() | replies.internal_reply(1, 1, "") | replies._TYPES_OF_REPLY.keys()


def test_each_property_of_a_request_is_in_the_table_and_no_other() -> None:
    assert set(first_cells("Sent by a client")) == a_request().keys()


def test_each_property_of_a_reply_is_in_the_table_and_no_other() -> None:
    assert set(first_cells("Sent by a server")) == a_reply().keys()


def test_each_header_of_the_library_is_in_the_table_and_no_other() -> None:
    table = first_cells("| header | type | set by |")

    assert {name for name in table if name.startswith("x-qam-")} == HEADERS != set()


def test_no_module_has_a_header_of_its_own() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "qam").rglob("*.py"))

    assert set(re.findall(r'"(x-qam-[\w-]+)"', code)) == HEADERS


def test_each_row_of_headers_and_properties_says_its_type_and_who_sets_it() -> None:
    for below in ["Sent by a client", "| header |", "Sent by a server", "## The body of a req"]:
        table = re.search(r"^\|---.*\n((?:\|.*\n)+)", PAGE[PAGE.index(f"\n{below}") :], re.M)
        assert table is not None
        assert all(len(row.split(" | ")) >= 3 for row in table[1].splitlines())


def test_each_field_of_a_request_is_in_the_table_and_no_other() -> None:
    maker = RequestMaker("calc", "label.own", JSON, 1000, persistent=True)
    body = json.loads(maker.encode(7, "add", [1], {}, "label_client_routing_key"))

    assert first_cells("## The body of a request") == list(body)


def test_each_field_of_a_reply_is_in_the_table_and_no_other() -> None:
    assert set(first_cells("## The body of a reply")) == fields_of_replies()


def test_each_code_is_in_the_table_and_no_other() -> None:
    table = re.findall(r"^\| (-?\d) \| ", PAGE, re.MULTILINE)

    codes = {replies.NOT_INTERNAL, *replies._INTERNAL}
    assert sorted(map(int, table)) == sorted(codes)


def test_each_method_of_the_server_itself_is_in_the_table_and_no_other() -> None:
    with QAMServer("memory://wire-format", server_id="calc") as server:
        own = server._methods._system.keys()

    assert set(first_cells("These names call")) == {*own, requests.APPLY, requests.MULTICALL}


def test_the_entities_are_named_as_the_library_names_them() -> None:
    rows = re.findall(r"^\| (?:request|reply) (?:exchange|queue) \| (.*) \|$", PAGE, re.MULTILINE)
    named = {name for row in rows for name in spans(row)}

    to, back = (
        entities.request_binding("<server_id>"),
        entities.reply_binding("<server_id>", "<client_id>"),
    )
    assert named == {*to, *back}


@pytest.mark.parametrize(
    ("kind", "text"),
    re.findall(r"^\| (?:other )?`(\w+)`.* \| `(\{\"__type__\".*\})` \|$", PAGE, re.MULTILINE),
)
def test_each_value_is_written_as_the_page_shows_it(kind: str, text: str) -> None:
    value = JSON.decode(text.encode())

    assert type(value).__name__ == kind
    assert json.loads(JSON.encode(value)) == json.loads(text)


# --- the client -----------------------------------------------------------------


def test_the_client_of_the_page_is_the_one_that_is_tested() -> None:
    assert python_blocks("docs/topics/wire-format.md") == [EXAMPLE.read_text(encoding="utf-8")]


@pytest.fixture
def json_service(rabbitmq_node: RabbitMQNode, server_id: str) -> Iterator[Service]:
    place: dict[str, Any] = {"hostname": rabbitmq_node.host, "port": rabbitmq_node.port}
    with serving(server_id=server_id, serializer="json", **place) as service:
        yield service


@pytest.fixture
def other_client(
    json_service: Service, rabbitmq_node: RabbitMQNode, server_id: str
) -> Iterator[Any]:
    """The client of the page, connected to a server of this library."""
    example = runpy.run_path(str(EXAMPLE))
    url = rabbitmq_node.url.removesuffix("//") + "/%2F"
    client = example["OtherClient"](url, server_id)
    yield client
    client.connection.close()


def test_another_client_gets_results(other_client: Any) -> None:
    assert other_client.call("add", 2, 3) == 5
    assert other_client.call("testclass.adder_function", 1, 2) == 3
    assert other_client.call("system.apply", "add", [2], {"b": 5}) == 7


def test_another_client_learns_how_a_call_failed(other_client: Any) -> None:
    with pytest.raises(RuntimeError) as raised:
        other_client.call("fail", "a")
    with pytest.raises(RuntimeError) as missing:
        other_client.call("nothing")

    assert raised.value.args == ("builtins.ValueError", ["a"])
    assert missing.value.args[0] == replies.METHOD_NOT_FOUND


def test_a_late_reply_answers_no_other_call_of_another_client(
    other_client: Any, json_service: Service
) -> None:
    # given a call whose time was up
    with pytest.raises(TimeoutError):
        other_client.call("hold", 1, timeout=0.5)
    json_service.go_on.set()

    # then
    assert other_client.call("add", 2, 3) == 5


def test_another_client_shares_a_server_with_a_proxy(
    other_client: Any, rabbitmq_node: RabbitMQNode, server_id: str
) -> None:
    credentials = AMQPCredentials(rabbitmq_node.host, rabbitmq_node.port)
    with QAMProxy(server_id, credentials=credentials, serializer="json", timeout=60) as proxy:
        assert [proxy.add(1, 1), other_client.call("add", 1, 2), proxy.add(1, 3)] == [2, 3, 4]


def test_a_request_of_another_client_that_comes_twice_runs_once(
    other_client: Any, json_service: Service
) -> None:
    # when it sends its first request again
    other_client.call("add", 2, 3)
    other_client._calls = 0
    again = other_client.call("add", 2, 3)

    # then
    assert again == 5
    assert json_service.runs == [(2, 3)]
