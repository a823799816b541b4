"""What a process is started with, and the tests must not depend on."""

import os
import signal

_AS_FROM_A_TERMINAL = {
    signal.SIGHUP: signal.SIG_DFL,  # nohup ignores it
    signal.SIGINT: signal.default_int_handler,  # a shell ignores it for what runs in the background
    signal.SIGPIPE: signal.SIG_IGN,  # as Python has it, whatever its parent had
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGUSR1: signal.SIG_DFL,
    signal.SIGUSR2: signal.SIG_DFL,
}


def begin_as_from_a_terminal(home: str) -> None:
    """Give this process, and what it starts, the signals, umask and environment of a program that
    somebody starts at a terminal; *home* is the folder that HOME names."""
    for number, handler in _AS_FROM_A_TERMINAL.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    os.environ.update(HOME=home, TERM="xterm", LC_ALL="C.UTF-8")
