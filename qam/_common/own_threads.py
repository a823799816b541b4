"""Tells the threads of this library from those of the application."""

import threading


class OwnThread(threading.Thread):
    """A thread of this library: it does work for the application, which did not start it."""


def in_own_thread() -> bool:
    """Return True if the calling thread is one of the library's."""
    return isinstance(threading.current_thread(), OwnThread)
