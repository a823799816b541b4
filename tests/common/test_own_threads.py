"""Which threads are the library's."""

import dis
import importlib
import inspect
import os
import pkgutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import qam
from qam import QAMProxy, QAMServer
from qam._common import own_locks
from qam._common.own_threads import OwnThread, in_own_thread
from tests.scenarios.test_fork import in_a_child


def test_a_thread_of_the_application_is_none_of_them() -> None:
    answers = [in_own_thread()]
    thread = threading.Thread(target=lambda: answers.append(in_own_thread()))
    thread.start()
    thread.join()
    assert answers == [False, False]


def test_all_threads_of_proxy_and_server_are(server_id: str) -> None:
    url, answers = f"memory://{server_id}", list[bool]()
    before = set(threading.enumerate())
    with QAMServer(url, server_id=server_id) as server, QAMProxy(server_id, url) as proxy:
        server.register_function(in_own_thread)
        server.start()
        assert proxy.in_own_thread() is True
        uid = proxy.callback(lambda result: answers.append(in_own_thread())).in_own_thread()
        while proxy.get_callback_state(uid) != 2:
            pass
        new = set(threading.enumerate()) - before
        assert len(new) >= 7
        assert all(isinstance(each, OwnThread) for each in new)
    assert answers == [True]


# --- names ----------------------------------------------------------------------------------

#: What the threads of Python 3.13 and 3.14 have besides, and those of earlier ones do not.
OF_LATER_PYTHONS = {"_after_fork", "_context", "_handle", "_os_thread_handle", "_set_os_name"}


def kinds_of_threads(base: type = OwnThread) -> Iterator[type]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds_of_threads(kind)


def private_names_of(kind: type) -> set[str]:
    """The private names that a class defines, or gives its instances."""
    functions = [inspect.unwrap(each) for each in vars(kind).values() if inspect.isfunction(each)]
    stored = {
        step.argval
        for function in functions
        for step in dis.get_instructions(function)
        if step.opname == "STORE_ATTR"
    }
    names = stored | set(vars(kind))
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_no_thread_of_the_library_has_a_private_name_of_pythons_threads() -> None:
    # given: all of them
    for module in pkgutil.walk_packages(qam.__path__, "qam."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    of_python = {*dir(threading.Thread), *vars(threading.Thread()), *OF_LATER_PYTHONS}

    # when
    kinds = {OwnThread, *kinds_of_threads()}

    # then
    assert len(kinds) >= 8
    wrong = {kind.__name__: private_names_of(kind) & of_python for kind in kinds}
    assert {name: names for name, names in wrong.items() if names} == {}


# --- joining --------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_a_thread_of_its_parent() -> None:
    # given a thread that ends when the test lets it
    go_on = threading.Event()
    thread = OwnThread(target=go_on.wait)
    thread.start()
    # when
    status = in_a_child(thread.join)
    # then
    go_on.set()
    thread.join()
    assert status == 0


class NeverFree:
    """A lock that a joiner has taken whom a signal has struck then."""

    def acquire(self, timeout: float) -> bool:
        time.sleep(min(timeout, 0.01))
        return False

    def release(self) -> None:
        """Others hold it all the same."""


def test_a_join_that_a_signal_has_left_in_the_middle_keeps_no_other_one_waiting() -> None:
    go_on = threading.Event()
    thread = OwnThread(target=go_on.wait)
    thread._works = NeverFree()  # type: ignore[assignment]
    thread.start()
    joining = threading.Thread(target=thread.join)
    # when
    joining.start()
    go_on.set()
    # then
    joining.join(60)
    assert not joining.is_alive()


# --- finalizers -----------------------------------------------------------------


def test_only_what_is_below_code_of_the_library_asks_for_its_locks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a thread that holds a lock, and a file of the application whose path begins alike
    lock = own_locks.own_lock()
    alike = own_locks._PACKAGE.rstrip(os.sep) + "_application.py"
    names: dict[str, object] = {"ask": own_locks.holds_own_lock}
    exec(compile("def application():\n    return ask()", alike, "exec"), names)
    library = own_locks._PACKAGE + "section.py"
    exec(compile("def section(call):\n    return call()", library, "exec"), names)
    application: Any = names["application"]
    section: Any = names["section"]
    # when, then
    with lock:
        assert not application()
        assert section(application)
    assert not section(application)
