"""A RabbitMQ cluster that belongs to the tests alone."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from tests.support.rabbitmq import RabbitMQNode

_POLL_INTERVAL = 0.05  # seconds
_STANDS_WITHIN = 30.0  # seconds, once all nodes answer


class Cluster:
    """So many private RabbitMQ nodes, joined to one cluster; `config` is for each of them.

    As a context manager it is started, and stopped with all that belongs to it. The first node
    starts alone and the others join it: nodes that all look for each other at once may end up
    in a cluster whose feature flags are off, and which then knows no quorum queues.

    After a kill the others need a moment to choose new leaders (0.2 to 0.5 s): until then a
    publish to a quorum queue is nacked. A channel that has published in that moment gets nacks for
    ever (RabbitMQ 3.10: it goes on asking the dead leader); a new channel does not.

    Where a node is down, whoever kills the last one has to restart it first: the others have not
    seen all that it has.
    """

    def __init__(self, nodes: int = 3, *, config: Mapping[str, str] | None = None) -> None:
        # A killed node is gone, and its sockets closed: there is no partition to be handled.
        config = {"cluster_partition_handling": "ignore", **(config or {})}
        self.nodes = [RabbitMQNode(config=config)]
        joining = config | {
            "cluster_formation.peer_discovery_backend": "classic_config",
            "cluster_formation.classic_config.nodes.1": self.nodes[0].name,
        }
        while len(self.nodes) < nodes:
            self.nodes.append(RabbitMQNode(config=joining, beside=self.nodes[-1]))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the nodes; returns when each sees all of them run.

        Raises RuntimeError if that does not come about; nothing is left running then.
        """
        first, *others = self.nodes
        try:
            first.start()
            with ThreadPoolExecutor(thread_name_prefix="start of a node") as pool:
                list(pool.map(RabbitMQNode.start, others))
            self._wait_until_it_stands()
        except BaseException:
            self.stop()
            raise

    def kill(self, index: int) -> None:
        """Ends a node by SIGKILL and returns when it is gone; its data stay for `restart`."""
        self.nodes[index].kill()

    def restart(self, index: int) -> None:
        """Starts a node again, same port, same data; returns when it is back in the cluster."""
        self.nodes[index].restart()
        self._wait_until_it_stands()

    def stop(self) -> None:
        """Ends everything that was started and deletes the data."""
        for node in reversed(self.nodes):  # the first has the epmd that all of them use
            node.stop()

    def _wait_until_it_stands(self) -> None:
        running = [node for node in self.nodes if node.running]
        names = {node.name for node in running}
        deadline = time.monotonic() + _STANDS_WITHIN
        while unaware := [node.name for node in running if node.running_nodes() != names]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{unaware} do not see the whole cluster:\n{running[0].log()}")
            time.sleep(_POLL_INTERVAL)
