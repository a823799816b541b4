"""Calls that wait for their results."""

from warehouse import make_server

from qam import QAMProxy

with make_server("memory://warehouse") as server:
    server.start()
    with QAMProxy("warehouse", "memory://warehouse", timeout=10) as proxy:
        print(proxy.add(2, 3))
        print(proxy.add(2, b=40))
        print(proxy.stock.count("bolt"))
