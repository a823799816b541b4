"""Calls a QAMServer without qam: JSON over AMQP, here with the library pika."""

import json
import uuid
from typing import Any

import pika


class OtherClient:
    """Calls the methods of the server *server_id* at the broker *url*; for one thread."""

    def __init__(self, url: str, server_id: str) -> None:
        self._server_id, self._calls = server_id, 0
        self._id = f"other.{uuid.uuid4().hex}"  # new for each client
        self._reply_to = f"{self._id}_client_routing_key"
        self._queue = f"{self._id}_client_queue"
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self.connection.channel()
        self._channel.confirm_delivery()  # then basic_publish raises if no queue takes a request
        self._channel.queue_declare(self._queue, exclusive=True)
        self._channel.queue_bind(self._queue, f"{server_id}_client_exchange", self._reply_to)

    def call(self, method: str, *params: Any, timeout: float = 10) -> Any:
        """Return the result of *method*, or raise a RuntimeError that says how it failed."""
        self._calls += 1
        correlation_id = f"{self._id}:{self._calls}"  # never used again
        body = {"id": self._calls, "method_name": method, "params": params}
        self._channel.basic_publish(
            exchange=f"{self._server_id}_server_exchange",
            routing_key=f"{self._server_id}_server_routing_key",
            body=json.dumps(body | {"routing_key": self._reply_to}).encode(),
            properties=pika.BasicProperties(
                content_type="application/json",
                content_encoding="utf-8",
                delivery_mode=2,
                correlation_id=correlation_id,
                reply_to=self._reply_to,
                expiration=str(round(timeout * 1000)),
            ),
            mandatory=True,
        )
        replies = self._channel.consume(self._queue, auto_ack=True, inactivity_timeout=timeout)
        for _, properties, reply in replies:
            if reply is None:
                raise TimeoutError(f"{method}: no reply within {timeout} s")
            if properties.correlation_id == correlation_id:  # no late reply to an earlier call
                return self._outcome(**json.loads(reply))
        raise ConnectionError("the queue of the replies was deleted")

    def _outcome(self, result: Any, exception: bool, internal_exception: int, **more: Any) -> Any:
        if exception:
            raise RuntimeError(more.get("exception_type") or internal_exception, result)
        return result


if __name__ == "__main__":
    client = OtherClient("amqp://guest:guest@localhost:5672/%2F", "calc")
    print(client.call("add", 2, 3))
    client.connection.close()
