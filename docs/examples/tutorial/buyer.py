"""A client of the warehouse, on whatever host."""

import os

from items import Item

from qam import QAMProxy

with QAMProxy("warehouse", os.environ["QAM_BROKER_URL"], timeout=10) as proxy:
    print(proxy.add(2, 3))
    print(proxy.stock.store(Item("bolt", 2)))
