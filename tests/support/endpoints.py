"""Where tests open connections to."""

from typing import Any

from qam import AMQPCredentials
from qam._broker.endpoint import Endpoint


def endpoint_of(*place: Any, **more: Any) -> Endpoint:
    """The one endpoint of credentials that are made of the arguments."""
    [endpoint] = AMQPCredentials(*place, **more).endpoints()
    return endpoint
