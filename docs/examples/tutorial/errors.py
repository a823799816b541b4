"""Calls that fail: in the method, or on the way."""

from warehouse import make_server

from qam import QAMException, QAMProxy

with make_server("memory://warehouse") as server:
    server.start()
    with QAMProxy("warehouse", "memory://warehouse", timeout=10) as proxy:
        try:
            proxy.stock.count("anvil")
        except KeyError as error:
            print("the method raised", repr(error))
        try:
            proxy.stock.steal("bolt")
        except QAMException as error:
            print(type(error).__name__, "executed:", error.executed)
            if error.safe_to_retry:
                print("the same call can be made again")
