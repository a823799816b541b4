"""Instances of one's own classes, as arguments and as results."""

from items import Item
from warehouse import make_server

from qam import QAMProxy

with make_server("memory://warehouse") as server:
    server.start()
    with QAMProxy("warehouse", "memory://warehouse", timeout=10) as proxy:
        print(proxy.stock.store(Item("bolt", 2)))
