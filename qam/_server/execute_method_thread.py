"""The threads of a server that run its methods."""

import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager
from logging import DEBUG, ERROR
from types import CoroutineType
from typing import Any, Protocol

from qam._common.error_texts import describe
from qam._common.job_queue import JobQueue
from qam._common.logs import get_logger
from qam._common.own_threads import OwnThread
from qam._common.printable import printable
from qam._common.rare_warnings import RareWarnings
from qam._common.served_call import served_call
from qam._protocol.bodies import decode
from qam._protocol.multicalls import calls_of, pack_replies
from qam._protocol.replies import (
    METHOD_NOT_FOUND,
    NOT_INTERNAL,
    REQUEST_UNREADABLE,
    RESULT_NOT_SERIALIZABLE,
    SERVER_FAILED,
    SERVER_LOST,
    bare_exception_reply,
    exception_reply,
    internal_reply,
    result_reply,
    shorter_replies,
)
from qam._protocol.requests import MULTICALL, Request
from qam._serialization.refusals import Receiver
from qam._server.call import Answer, Call, code_if_not_run
from qam._server.dynamic_instances import NoSuchMethodError
from qam._server.mailboxes import SettledCalls
from qam._server.messages import Message, Messages
from qam._server.method_registry import MethodRegistry
from qam._server.middleware import surrounded
from qam._server.publisher_thread import ReplyPublisherThread
from qam._server.settings import ServerSettings
from qam.exceptions import QAMMethodNotFoundException, QAMSerializationException

log = get_logger("qam.qam_server")

#: How often an idempotent method is begun for one call, at most.
_MAX_RUNS = 3


class Pool(Protocol):
    """The pool of a worker, as the worker sees it."""

    def one_waits(self) -> AbstractContextManager[None]:
        """Return what surrounds a call that a method makes: another worker may run meanwhile."""

    def dismisses(self, worker: "ExecuteMethodThread") -> bool:
        """Return True if *worker* is to end, since there are too many."""


def _not_run(call: Call, request: Request, code: int, error: Exception) -> dict[str, Any]:
    """Return the body of the reply that says why no method ran here."""
    return internal_reply(request.id, code_if_not_run(call, code), str(error))


def _no_coroutine(result: Any) -> Any:
    """Return *result*; raise TypeError if it is a coroutine, which nobody would await."""
    if type(result) is CoroutineType:
        result.close()
        raise TypeError("a plain function returned a coroutine; register the async function itself")
    return result


class ExecuteMethodThread(OwnThread):
    """Runs one method after the other, and hands the replies to the ReplyPublisherThread.

    :param settings: the settings of the server.
    :param calls: the queue of the requests.
    :param methods: the registered methods.
    :param messages: makes the replies.
    :param publisher: sends the replies.
    :param settled: takes the calls that need no reply.
    :param warnings: logs the errors in requests.
    :param pool: the pool of this worker.
    """

    def __init__(
        self,
        settings: ServerSettings,
        calls: JobQueue[Call],
        methods: MethodRegistry,
        messages: Messages,
        publisher: ReplyPublisherThread,
        settled: SettledCalls,
        warnings: RareWarnings,
        pool: Pool,
    ) -> None:
        # A daemon: a method that never returns must not hold up the interpreter's end.
        super().__init__(name=f"qam ExecuteMethodThread {settings.server_id}", daemon=True)
        self._calls = calls
        self._methods = methods
        self._settings = settings
        self._serializer = settings.serializer
        self._receiver = Receiver("server", settings.server_id)
        self._messages = messages
        self._max_message_bytes = settings.max_message_bytes
        self._send_tracebacks = settings.send_tracebacks
        self._stations = settings.stations
        self._publisher = publisher
        self._settled = settled
        self._warnings = warnings
        self._pool = pool

    def run(self) -> None:
        """Run methods until the server closes."""
        while (call := self._calls.get()) is not None:
            self._work_on(call)
            del call  # an idle thread keeps no request and no reply alive
            if self._pool.dismisses(self):
                return

    def waiting(self) -> AbstractContextManager[None]:
        """Around a call that the method makes: let another worker run meanwhile."""
        return self._pool.one_waits()

    def _work_on(self, call: Call) -> None:
        reply = self._answer(call)
        if call.cut_off:
            return
        if reply is None:
            self._settled.put_now(call)
        elif call.alone and self._calls.waiting_since() is None:
            self._publisher.send_lone(reply)
        else:
            self._publisher.add_reply_to_send(reply)

    def _answer(self, call: Call) -> Message | None:
        """Return the reply to *call*, None if there is none; a bug costs this call only."""
        self.runs_user_code = True  # the method, and the classes of its arguments and its result
        try:
            return self._reply_to(call)
        except BaseException:
            log.exception("a request could not be answered, and its caller gets no reply")
            return None
        finally:
            self.runs_user_code = False

    def _reply_to(self, call: Call) -> Message | None:
        """Run the method of *call*; return the reply, None if no caller waits for one."""
        if call.time_to_live is not None and call.is_expired(time.monotonic()):
            if log.isEnabledFor(DEBUG):
                self._log_station(call, "not started, since its caller waits no more")
            return None
        try:
            request = self._read(call)
        except QAMSerializationException as error:
            return self._refuse(call, error)
        call.request_id, call.method_name = request.id, request.called_name
        if self._methods.is_idempotent(request.method_name, request.params):
            call.idempotent = True
        if call.lost and call.idempotent and call.runs < _MAX_RUNS:
            log.info("%s() is run again: the server that had it went away", call.method_name)
            return self._messages.request_anew(call, time.monotonic(), runs=call.runs + 1)
        try:
            reply = self._run(call, request)
            if call.one_way:
                reply = self._keep_here(call, reply)
            body = self._encode(call, reply)
        except BaseException as error:  # a bug of this library costs this call only
            log.exception("a request could not be answered")
            failure = internal_reply(request.id, SERVER_FAILED, describe(error))
            body = self._serializer.encode(failure, call.delivery.body)
        call.answer = Answer(request.routing_key, body)
        return self._messages.reply(call, call.answer)

    def _read(self, call: Call) -> Request:
        """Return the request; only its envelope if a server may have died of its arguments.

        So arguments that end a process when they are decoded end one server, or as many as
        may run the method.
        """
        if call.lost:
            body = decode(self._serializer, call.delivery, self._receiver, envelope=True)
            return Request.from_envelope(body)
        return Request.from_body(decode(self._serializer, call.delivery, self._receiver))

    def _refuse(self, call: Call, error: QAMSerializationException) -> Message | None:
        """Mark a request to be rejected; return the reply that tells its caller why, if one can."""
        self._warnings.warn("a request was dropped: %s", error)
        call.rejected = True
        routing_key = call.delivery.reply_to
        if routing_key is None or call.correlation_id is None:
            return None  # a 0.2.x client, or no client of ours
        reply = internal_reply(None, code_if_not_run(call, REQUEST_UNREADABLE), str(error))
        body = self._encode(call, reply)
        call.answer = Answer(routing_key, body)
        return self._messages.reply(call, call.answer)

    def _run(self, call: Call, request: Request) -> dict[str, Any]:
        """Run the method; return the body of the reply, also if it raises or can't run."""
        if call.lost:
            return internal_reply(
                request.id,
                SERVER_LOST,
                f"the server that had {printable(call.method_name)}() died, or lost its "
                "connection, before it answered; the method may have run",
            )
        try:
            if request.method_name == MULTICALL:
                return self._run_all(call, request, calls_of(request))
            method = self._methods.resolve(request.method_name, request.params)
        except QAMMethodNotFoundException as error:
            return _not_run(call, request, METHOD_NOT_FOUND, error)
        except QAMSerializationException as error:
            return _not_run(call, request, REQUEST_UNREADABLE, error)
        return self._call(call, request, method)

    def _call(self, call: Call, request: Request, method: Callable[[], Any]) -> dict[str, Any]:
        """Call *method* inside the middleware; return the body of the reply, also if it raises."""
        is_watched = log.isEnabledFor(DEBUG)
        if is_watched:
            self._log_station(call, "started", call.method_name)
        if self._settings.user is not None:
            call.server_user = self._settings.user
        started = time.monotonic()
        served = served_call.set(call)
        try:
            if self._settings.middleware and not request.is_for_system:
                method = surrounded(method, call, self._settings.middleware)
            return result_reply(request.id, _no_coroutine(method()))
        except NoSuchMethodError as error:
            return _not_run(call, request, METHOD_NOT_FOUND, error)
        except BaseException as error:
            call.cut_off = call.given_up
            self._log_exception(call, error)
            return self._exception_reply(call, error)
        finally:
            served_call.reset(served)
            call.seconds = time.monotonic() - started
            if is_watched:
                self._log_station(call, "ended")

    def _exception_reply(self, call: Call, error: BaseException) -> dict[str, Any]:
        try:
            return exception_reply(
                call.request_id,
                error,
                self._serializer,
                send_traceback=self._send_tracebacks,
                # a 0.2.x client, which sends no reply_to
                by_plain_pickle=call.delivery.properties.get("reply_to") is None,
            )
        except BaseException as why:  # the code of its class fails, as by a property of its own
            log.warning(
                "what %s() raised can't be shown: its class raised a %s",
                *(call.method_name, type(why).__name__),
            )
            serializer, send_traceback = self._serializer, self._send_tracebacks
            return bare_exception_reply(call.request_id, error, serializer, send_traceback)

    def _run_all(self, call: Call, request: Request, calls: list[Request]) -> dict[str, Any]:
        """Run the *calls* of a ``system.multicall``; return the body of the reply.

        What is not begun when the time of the caller is up does not run.
        """
        started, replies = time.monotonic(), []
        for each in calls:
            if call.is_cancelled(time.monotonic()):
                call.cut_off = call.given_up
                break
            call.method_name = each.called_name
            replies.append(self._encode(call, self._run(call, each)))
        call.method_name, call.seconds = request.method_name, time.monotonic() - started
        return result_reply(request.id, pack_replies(replies, self._serializer))

    def _keep_here(self, call: Call, reply: dict[str, Any]) -> dict[str, Any]:
        """Log why the method of a call did not run for whose reply nobody waits.

        :returns: the reply for the record, without the result.
        """
        if reply["internal_exception"] != NOT_INTERNAL:
            why = reply["result"]
            log.warning("%s() was sent one way, and failed: %s", call.method_name, why)
        return result_reply(reply["id"], None)

    def _log_exception(self, call: Call, error: BaseException) -> None:
        """Log what a method raised, with its traceback; its caller gets the exception too."""
        if self._settings.log_exceptions:
            ended = isinstance(error, CancelledError) and call.is_cancelled(time.monotonic())
            expected = ended or isinstance(error, self._settings.expected_exceptions)
            level = DEBUG if expected else ERROR
            log.log(level, "%s() raised an exception", call.method_name, exc_info=error)

    def _log_station(self, call: Call, name: str, method_name: str = "") -> None:
        self._stations.note(name, call.correlation_id, method_name)
        self._stations.log()

    def _encode(self, call: Call, reply: dict[str, Any]) -> bytes:
        body, why = self._try_to_encode(call, reply)
        if body is None and not reply["exception"]:
            what = f"the result of {printable(call.method_name)}()"
            self._warnings.warn("%s %s", what, why)
            reply = internal_reply(reply["id"], RESULT_NOT_SERIALIZABLE, f"{what} {why}")
            body, _ = self._try_to_encode(call, reply)
        return self._encode_shorter(call, reply) if body is None else body

    def _encode_shorter(self, call: Call, failure: dict[str, Any]) -> bytes:
        """Return the reply *failure*, cut until it can be sent; the shortest has any size."""
        shorter = failure
        for shorter in shorter_replies(failure):
            body, _ = self._try_to_encode(call, shorter)
            if body is not None:
                return body
        return self._serializer.encode(shorter, call.delivery.body)

    def _try_to_encode(self, call: Call, reply: dict[str, Any]) -> tuple[bytes | None, str]:
        """Return the encoded *reply*; or None, and why it can't be encoded or sent."""
        try:
            body = self._serializer.encode(reply, call.delivery.body)
        except Exception as error:
            return None, f"can't be encoded as {self._serializer.name}: {describe(error)}"
        if len(body) <= self._max_message_bytes:
            return body, ""
        why = f"has {len(body)} bytes, more than max_message_bytes={self._max_message_bytes}"
        return None, why
