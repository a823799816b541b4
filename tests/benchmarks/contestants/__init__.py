"""The contestants: for each library a module with `Client` and `serve`.

`serve(place, ready)` runs a server in the main thread of its process; it calls `ready()` when
requests are taken, and need never return: the process is killed.
"""

from dataclasses import dataclass

_HERE = __name__


@dataclass(frozen=True)
class Contestant:
    """Who takes part, as the driver knows it."""

    name: str
    #: The module with `Client` and `serve`.
    module: str
    #: What the module is told, for modules that stand for more than one contestant.
    variant: str = ""
    #: What pip installs into an environment of its own; without it this one has all it needs.
    requirements: tuple[str, ...] = ()
    #: The distributions of which the versions are reported.
    packages: tuple[str, ...] = ()


def _here(name: str, module: str, variant: str = "", packages: str = "amqp") -> Contestant:
    return Contestant(name, f"{_HERE}.{module}", variant, packages=tuple(packages.split()))


# An environment for each, not only for those that conflict: what one of them asks for then
# changes nothing for another one, or for qam.
def _elsewhere(name: str, module: str, requirements: str, packages: str) -> Contestant:
    wanted, reported = tuple(requirements.split()), tuple(packages.split())
    return Contestant(name, f"{_HERE}.{module}", requirements=wanted, packages=reported)


_ALL = (
    _here("raw", "raw"),
    _here("qam", "qam_rpc", packages="qam kombu amqp"),
    _here("qam-futures", "qam_rpc", "futures", packages="qam kombu amqp"),
    _here("qam-transient", "qam_rpc", "transient", packages="qam kombu amqp"),
    _here("amqp-confirms", "amqp_confirms"),
    _here("kombu", "kombu_acks", packages="kombu amqp"),
    _here("kombu-confirm", "kombu_acks", "confirm", packages="kombu amqp"),
    _elsewhere("pika", "pika_blocking", "pika", "pika"),
    _elsewhere("aio-pika", "aio_pika_rpc", "aio-pika", "aio-pika aiormq"),
    _elsewhere("nameko", "nameko_rpc", "nameko", "nameko kombu amqp eventlet"),
    _elsewhere("oslo.messaging", "oslo_rpc", "oslo.messaging", "oslo.messaging kombu amqp"),
    _elsewhere("celery", "celery_rpc", "celery", "celery kombu amqp"),
    _elsewhere("faststream", "faststream_rpc", "faststream[rabbit]", "faststream aio-pika"),
    _elsewhere("pyro5", "pyro5_rpc", "Pyro5", "Pyro5 serpent"),
)

#: All contestants by name, in the order in which they are measured and shown.
CONTESTANTS = {contestant.name: contestant for contestant in _ALL}
#: The one that all others are compared with.
REFERENCE = "raw"
