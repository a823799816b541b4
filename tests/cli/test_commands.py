import os
import subprocess

import pytest

from qam import __version__
from tests.cli.conftest import Run
from tests.cli.conftest import command as command_line


def test_without_a_command_help_is_printed(run: Run) -> None:
    exit_code, output, errors = run()

    assert (exit_code, output) == (2, "")
    assert errors.startswith("usage: qam ")
    for command in ("call", "methods", "ping", "health", "serve", "shell", "demo"):
        assert f"    {command} " in errors


def test_the_version_is_shown(run: Run) -> None:
    assert run("--version") == (0, f"qam {__version__}\n", "")


@pytest.mark.parametrize("command", ["call", "methods", "ping", "health", "serve", "shell", "demo"])
def test_each_command_has_help_and_takes_a_broker(run: Run, command: str) -> None:
    exit_code, output, errors = run(command, "--help")

    assert (exit_code, errors) == (0, "")
    assert output.startswith(f"usage: qam {command} ")
    assert "--broker URL" in output
    assert "--traceback" in output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["dance"], "qam: argument COMMAND: invalid choice: 'dance' (choose from "),
        (["--dance"], "qam: unrecognized arguments: --dance"),
        (
            ["--broker", "x", "ping", "calc"],
            "qam: --broker is no option of qam itself; those of a command come after it; see ",
        ),
        (["ping", "calc", "--dance"], "qam ping: unrecognized arguments: --dance; see "),
        (["ping", "calc", "twice"], "qam ping: unrecognized arguments: twice; see "),
        (["call", "calc"], "qam call: the following arguments are required: METHOD; see "),
        (["call"], "qam call: the following arguments are required: ID, METHOD; see "),
        (
            ["call", "calc", "add", "1", "--dance"],
            "qam call: unrecognized arguments: --dance; a text that begins with '-' comes after --",
        ),
        (["call", "calc", "add", "-x"], "qam call: unrecognized arguments: -x; a text that "),
        (["call", "calc", "add", "--time", "5"], "qam call: unrecognized arguments: --time; "),
        (
            ["call", "calc", "add", "--timeout", "0"],
            "qam call: argument --timeout: must be a positive number of seconds, not '0'; see ",
        ),
        (["ping", "calc", "-c", "0"], "qam ping: argument -c/--count: must be a whole number, 1 "),
        (["ping", "calc", "-c", "x"], "qam ping: argument -c/--count: must be a whole number, 1 "),
        (["ping", "calc", "--interval", "-1"], "qam ping: argument --interval: "),
        (["health", "calc", "--max-waiting", "-1"], "qam health: argument --max-waiting: must be "),
        (["methods", "calc", "--json", "--stub"], "qam methods: argument --stub: not allowed "),
        (["call", "calc", "add", "--serializer", "xml"], "qam call: argument --serializer: inval"),
        (["ping", ""], "qam ping: argument ID: it must have 1 to 190 bytes, not ''; see "),
        (["ping", "x" * 191], "qam ping: argument ID: it must have 1 to 190 bytes, not "),
        (["ping", "amqp://h"], "qam ping: argument ID: it is a URL"),
        (["serve"], "qam serve: the following arguments are required: TARGET; see "),
        (["shell"], "qam shell: the following arguments are required: ID; see "),
        (["ping", "calc", "two\nlines"], "qam ping: unrecognized arguments: two lines; see "),
    ],
)
def test_wrong_arguments_are_told_in_one_line(run: Run, arguments: list[str], told: str) -> None:
    exit_code, output, errors = run(*arguments)

    assert (exit_code, output) == (2, "")
    assert errors.count("\n") == 1
    assert errors.startswith(told)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (["1", "2"], ["1", "2"]),
        (["--timeout", "5", "1", "2"], ["1", "2"]),
        (["1", "--timeout", "5", "2"], ["1", "2"]),
        (["1", "2", "--timeout", "5"], ["1", "2"]),
        (["-1", "--timeout", "5", "-2.5"], ["-1", "-2.5"]),
        (["--timeout", "5", "--", "--x"], ["--x"]),
        (["--", "--x", "-1"], ["--x", "-1"]),
        ([], []),
    ],
)
def test_arguments_may_stand_before_and_behind_options(
    run: Run, monkeypatch: pytest.MonkeyPatch, written: list[str], words: list[str]
) -> None:
    # given
    seen: list[list[str]] = []

    def look(given: list[str]) -> None:
        seen.append(list(given))
        raise KeyboardInterrupt

    monkeypatch.setattr("qam._cli.call.arguments_of", look)

    # when
    exit_code, *_ = run("call", "calc", "add", *written)

    # then
    assert (exit_code, seen) == (130, [words])


@pytest.mark.parametrize("arguments", [["--version"], ["demo"]], ids=" ".join)
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")
def test_output_that_can_not_be_written_is_told_in_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command_line(*arguments), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "stdout can't be written: No space left on device" in done.stderr
