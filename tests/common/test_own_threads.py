"""Which threads are the library's."""

import threading

from qam import QAMProxy, QAMServer
from qam._common.own_threads import OwnThread, in_own_thread


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
