"""A home for RabbitMQ without its plugins."""

from pathlib import Path

import pytest

from tests.support.lean_home import without_plugins
from tests.support.programs import ROOT_VARIABLE


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A server's start script, in a home in which there is no plugin yet."""
    for folder in ("escript", "plugins", "sbin"):
        (tmp_path / "rabbitmq" / folder).mkdir(parents=True)
    program = tmp_path / "rabbitmq" / "sbin" / "rabbitmq-server"
    program.write_text("#!/bin/sh\n")
    return program


def add_plugin(program: Path, name: str, needs: str) -> None:
    folder = program.parents[1] / "plugins" / f"{name}-3.10.8" / "ebin"
    folder.mkdir(parents=True)
    (folder / f"{name}.app").write_text(
        f'{{application, {name}, [{{vsn, "3"}},\n {{applications, [kernel,{needs}]}}]}}.'
    )


def test_it_has_what_the_broker_needs_and_no_more(program: Path, tmp_path: Path) -> None:
    # given
    add_plugin(program, "rabbit", "\n stdlib,\n rabbit_common")
    add_plugin(program, "rabbit_common", "ranch")
    add_plugin(program, "ranch", "ssl, rabbit")
    add_plugin(program, "rabbitmq_management", "rabbit,cowboy")
    add_plugin(program, "cowboy", "ranch")
    # when
    command = without_plugins(["env", str(program)], tmp_path / "home")
    # then
    assert command == ["env", str(tmp_path / "home" / "sbin" / "rabbitmq-server")]
    assert not Path(command[-1]).is_symlink()
    plugins = {plugin.name for plugin in (tmp_path / "home" / "plugins").iterdir()}
    assert plugins == {"rabbit-3.10.8", "rabbit_common-3.10.8", "ranch-3.10.8"}
    assert (tmp_path / "home" / "plugins" / "ranch-3.10.8" / "ebin").is_dir()
    assert (tmp_path / "home" / "escript").is_dir()


def test_its_links_hold_in_the_system_that_has_the_programs(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_plugin(program, "rabbit", "stdlib")
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    # when
    without_plugins(["/rabbitmq/sbin/rabbitmq-server"], tmp_path / "home")
    # then
    assert (tmp_path / "home" / "plugins" / "rabbit-3.10.8").readlink() == Path(
        "/rabbitmq/plugins/rabbit-3.10.8"
    )


def test_a_server_that_is_laid_out_otherwise_stays_where_it_is(
    program: Path, tmp_path: Path
) -> None:
    assert without_plugins([str(program)], tmp_path / "home") == [str(program)]
    assert not (tmp_path / "home").exists()
