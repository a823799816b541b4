"""Several calls at once, whose outcomes come as futures."""

from concurrent.futures import as_completed

from warehouse import make_server

from qam import QAMProxy, submit

with make_server("memory://warehouse") as server:
    server.start()
    with QAMProxy("warehouse", "memory://warehouse", timeout=10) as proxy:
        naps = [submit(proxy.nap, seconds) for seconds in (0.2, 0.1)]
        print([each.result() for each in as_completed(naps)])
        print(submit(proxy.add, 2, 5).result())
