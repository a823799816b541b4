"""The state of a callback, as a program asks for it that has other work meanwhile."""

from warehouse import make_server

from qam import QAMProxy

WAITING, BEING_EXECUTED, FINISHED = 0, 1, 2

with make_server("memory://warehouse") as server:
    server.start()
    with QAMProxy("warehouse", "memory://warehouse", timeout=10) as proxy:
        uid = proxy.callback(print).nap(0.2)
        print(proxy.get_callback_state(uid) == WAITING)
        while proxy.get_callback_state(uid) != FINISHED:
            pass  # other work
        print(proxy.get_num_waiting_callbacks(), "callbacks wait")
