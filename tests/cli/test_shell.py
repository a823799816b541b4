import pytest

from qam._cli.shell import _name_for
from tests.cli.conftest import Run, in_process, serving
from tests.support.rabbitmq import RabbitMQNode
from tests.support.service import Service


def test_a_prompt_has_a_proxy_for_each_server(rabbitmq_node: RabbitMQNode, server_id: str) -> None:
    # given
    typed = f"print(proxy.add(2, 3))\nprint(submit(other.add, 2).result())\nprint({server_id!r})\n"
    name = f"proxy_{server_id}" if server_id[0].isdigit() else server_id
    typed = typed.replace("proxy.", f"{name}.")

    with serving("calc", "--server-id", server_id, url=rabbitmq_node.url):
        # when
        exit_code, output, errors = in_process(
            "shell", server_id, "other", url=rabbitmq_node.url, input=typed.replace("other", name)
        )

    # then
    assert exit_code == 0
    assert f"{name} = <open QAMProxy of {server_id!r}" in errors
    assert "other = <open QAMProxy of 'other'" in errors
    assert output.count("5") >= 1
    assert "Traceback" not in errors


def test_what_is_typed_is_evaluated_with_the_proxies_and_the_functions_of_the_library(
    run: Run,
    service: Service,
    server_id: str,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given
    name = _name_for(server_id, {})
    typed = iter([f"print({name}.add(2, 3))", f"print(submit({name}.add, 3, 4).result())"])

    def read(prompt: str) -> str:
        for line in typed:
            return line
        raise EOFError

    monkeypatch.setattr("builtins.input", read)

    # when
    exit_code, output, errors = run("shell", server_id, "--broker", url)

    # then
    assert (exit_code, output) == (0, "5\n7\n")
    assert errors.startswith(f"{name} = <open QAMProxy of {server_id!r}")


@pytest.mark.parametrize(
    ("server_id", "name"),
    [
        ("calc", "calc"),
        ("my-calc.2", "my_calc_2"),
        ("2calc", "proxy_2calc"),
        ("class", "proxy_class"),
        ("ping", "ping_"),
        ("§", "proxy__"),
    ],
)
def test_the_name_of_a_proxy_is_like_that_of_its_server(server_id: str, name: str) -> None:
    assert _name_for(server_id, {"ping": None}) == name
