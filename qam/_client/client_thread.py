"""What both threads of a proxy have that own a connection."""

from abc import abstractmethod
from typing import Any

from qam._broker.connect import CONNECT_TIMEOUT
from qam._broker.connection_thread import ConnectionThread
from qam._broker.credentials import AMQPCredentials
from qam._broker.messages import MAX_MESSAGE_BYTES
from qam._client.result_list import ResultList
from qam._common.error_texts import describe
from qam._common.logs import get_logger
from qam._protocol.correlation import number_of
from qam._serialization.serializers import Serializer, get_serializer
from qam.exceptions import Executed, QAMClosedException, QAMException

log = get_logger("qam.qam_proxy")

Message = dict[str, Any]


def _as_serializer(serializer: str | Serializer) -> Serializer:
    return get_serializer(serializer) if isinstance(serializer, str) else serializer


class ClientThread(ConnectionThread):
    """A thread of a proxy: it ends the calls of the proxy with itself."""

    def __init__(
        self,
        amqp_credentials: AMQPCredentials,
        server_id: str,
        client_id: str,
        serializer: str | Serializer,
        *,
        results: ResultList | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        persistent: bool = True,
    ) -> None:
        name = f"qam {type(self).__name__} {client_id}"
        super().__init__(name, amqp_credentials, log, connect_timeout)
        self.amqp_credentials = amqp_credentials
        self.server_id = server_id
        self.client_id = client_id
        self._serializer = _as_serializer(serializer)
        self._results = results or ResultList()
        self._max_message_bytes = max_message_bytes
        self._persistent = persistent
        self._set_up()

    @abstractmethod
    def _set_up(self) -> None:
        """Make what this thread has beside."""

    def _own_call_id(self, correlation_id: str | None) -> int | None:
        """Return the id of the call that *correlation_id* belongs to; None for another's."""
        return number_of(correlation_id, self.client_id)

    def _on_end(self, error: BaseException | None) -> None:
        self.end_calls(error)

    def end_calls(self, error: BaseException | None) -> None:
        """End every call, and let none begin: a thread of the proxy ended, perhaps by *error*."""

        def failure(executed: Executed) -> QAMException:
            why = f" by an internal error ({describe(error)})" if error else ""
            closed = QAMClosedException(
                f"a thread of the proxy ended{why}; make a new proxy", executed=executed
            )
            closed.__cause__ = error
            return closed

        self._results.close(failure)
