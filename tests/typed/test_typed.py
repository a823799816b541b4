"""What is typed, and what is compared with what a page shows."""

from pathlib import Path

from tests.typed.blocks import Command, File, steps
from tests.typed.terminal import Terminal

PAGE = """
```python
# server.py
print(2 + 3)  # 5
```

```python
print("no file")
```

```sh
cd docs
make
```

```console
$ python server.py
serves at …
$ echo one
one
```
"""


def test_a_page_is_files_to_save_and_commands_to_type() -> None:
    program = "# server.py\nprint(2 + 3)  # 5\n"

    assert list(steps(PAGE)) == [
        File("server.py", program),
        Command("cd docs"),
        Command("make"),
        Command("python server.py", "serves at …\n"),
        Command("echo one", "one\n"),
    ]


def test_what_comes_has_to_be_what_is_shown() -> None:
    assert Command("make", "it took … s\n").shows("it took 5 s\n")
    assert not Command("make", "it took … s\n").shows("it took 5 s\nand more\n")
    assert not Command("make", "").shows("more\n")
    assert Command("make").shows("whatever")


def test_a_terminal_keeps_its_folder_and_its_exports(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    with Terminal(tmp_path, {"PATH": "/usr/bin:/bin"}, 60) as terminal:
        terminal.type("cd here; export WHO=me")

        assert terminal.type('echo "$WHO in ${PWD##*/}"') == ("me in here\n", 0)
        assert terminal.type("cat; printf no-line-end; false") == ("no-line-end", 1)


def test_a_command_that_does_not_end_is_killed(tmp_path: Path) -> None:
    with Terminal(tmp_path, {"PATH": "/usr/bin:/bin"}, 0.2) as terminal:
        assert terminal.type("echo begins; sleep 1000") == ("begins\n", -9)


def test_a_command_that_serves_is_left_running(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with Terminal(tmp_path / "home", {"PATH": "/usr/bin:/bin"}, 60) as terminal:
        shown = terminal.serve("echo ready; sleep 1000", lambda log: log == "ready\n")

        assert shown == ("ready\n", 0)
        assert terminal.type("jobs -r | wc -l").output.strip() == "1"
