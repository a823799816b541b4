"""A server process of the soak. SIGTERM ends it gracefully."""

import signal
import time

from qam import QAMServer
from tests.chaos.calls import answer_to
from tests.chaos.journal import Journal
from tests.chaos.part import Part


class Methods:
    """What the server offers; each run is in the journal before anything else happens."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def work(self, token: str, seconds: float) -> str:
        with self._journal.run(token):
            time.sleep(seconds)
            return answer_to(token)

    def again(self, token: str, seconds: float) -> str:
        return self.work(token, seconds)

    def fail(self, token: str) -> None:
        with self._journal.run(token):
            raise ValueError(token)


def main() -> None:
    part = Part.from_command_line()
    part.set_up_logging()
    methods = Methods(Journal(part.journal, part.started))
    server = QAMServer(expected_exceptions=[ValueError], **part.place)
    server.register_function(methods.work)
    server.register_function(methods.fail)
    server.register_function(methods.again, idempotent=True)
    signal.signal(signal.SIGTERM, lambda *_: server.close())
    part.say_ready()
    server.serve()


if __name__ == "__main__":
    main()
