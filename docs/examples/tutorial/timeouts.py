"""Calls that may take so long, and no longer."""

from warehouse import make_server

from qam import QAMProxy, QAMTimeoutException

with make_server("memory://warehouse") as server:
    server.start()
    with QAMProxy("warehouse", "memory://warehouse", timeout=10) as proxy:
        print(proxy.nap(0.1))
        try:
            proxy.set_timeout(0.1).nap(0.5)
        except QAMTimeoutException as error:
            print(error)
            print("executed:", error.executed)
        print(proxy.nap(0.5))
