"""Where the broker is, and with which user and password to connect."""

from qam._broker.credentials import HEARTBEAT, AMQPCredentials
from qam._common.doors import offer

__all__ = ["HEARTBEAT", "AMQPCredentials"]

offer(__name__, AMQPCredentials)
