"""The names that proxies have themselves: a remote method of such a name needs an index.

``proxy.close`` is the method of the proxy, and ``proxy["close"]`` the remote one.
"""

#: The public attributes of a QAMProxy, and of what set_timeout() and callback() return.
OF_PROXIES = frozenset(
    {
        *("amqp_credentials", "callback", "callback_observer_thread", "client_id", "close"),
        *("closed", "consumer_thread", "get_callback_state", "get_num_waiting_callbacks"),
        *("publisher_thread", "serializer", "set_timeout"),
    }
)
#: What is no attribute of any of them, nor of a remote method: IPython asks each object for it.
OF_NOTEBOOKS = frozenset({"getdoc"})


def is_hidden(name: str) -> bool:
    """Return True if the remote method *name* can't be written as an attribute of a proxy."""
    first, *others = name.split(".")
    return first in OF_PROXIES | OF_NOTEBOOKS or not OF_NOTEBOOKS.isdisjoint(others)
