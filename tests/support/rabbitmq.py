"""A RabbitMQ node that belongs to the tests alone."""

import atexit
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import amqp

from tests.support.lean_home import without_plugins
from tests.support.programs import find_program, how_to_install
from tests.support.tethered import TetheredProcess

_LOOPBACK = "127.0.0.1"
_POLL_INTERVAL = 0.05  # seconds
_LINES_OF_LOG_TO_SHOW = 60

# A client asks for a protocol version that nobody speaks, and is told one that is spoken. Which
# one is up to the release: before RabbitMQ 4 it was 0-9-1, since then it is one of 1.0.
_PROTOCOL_HEADER_TO_REFUSE = b"AMQP\x09\x09\x09\x09"
_PROTOCOL_HEADERS_BEGIN = b"AMQP"

# Ports below those that systems give to outgoing connections (from 32768 on Linux, 49152
# elsewhere). The port of a killed node must still be free when it restarts, and a client that
# reconnects all the while must not be given it as its own: it would then connect to itself.
_PORTS = range(20000, 32768)

# Names the type of queues that are declared without one, where that is not to be classic: a line
# `default_queue_type` in rabbitmq.conf, which RabbitMQ knows since 4.0.
QUEUE_TYPE_VARIABLE = "QAM_TEST_QUEUE_TYPE"

# Holds for every Erlang VM that is started: the node, its short-lived helpers, rabbitmqctl.
_ERL_FLAGS = "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false"

# Erlang expressions, for `evaluate`. What they print is what they answer. They ask only for what
# is there in RabbitMQ 3.10 and 4.0 and 4.3, and means the same in each.
# A quorum queue is asked itself: what RabbitMQ tells of its messages elsewhere is up to 5 s old.
# A queue that does not answer, deleted just now or with its node down, is left out.
_LIST_QUEUES = """
[io:format("~ts\\t~b~n", [element(4, amqqueue:get_name(Queue)), Messages]) ||
 Queue <- rabbit_amqqueue:list(<<"{vhost}">>),
 Messages <- case amqqueue:get_type(Queue) of
  rabbit_quorum_queue ->
   [Number || {{ok, {{_, Number}}, _}} <- [catch ra:local_query(
     amqqueue:get_pid(Queue), fun rabbit_fifo:query_messages_total/1)]];
  _ -> [Number || [{{messages, Number}}] <- [catch rabbit_amqqueue:info(Queue, [messages])]]
 end]
"""
_WRITE_THE_NAMES_OF_QUORUM_QUEUES = """
[dets:sync(Table) || Table <- dets:all()]
"""
_COUNT_CONNECTIONS = """
io:format("~b", [length(rabbit_networking:connections())])
"""
# A channel in the middle of a message to a slow link may not end in time, for which the call fails;
# its connection is closed all the same.
_CLOSE_ALL_CONNECTIONS = """
[catch rabbit_networking:close_connection(Pid, {reason})
 || Pid <- rabbit_networking:connections(), node(Pid) =:= node()]
"""
_CLOSE_ONE_CONNECTION = """
begin
 Pids = [Pid || Pid <- rabbit_networking:connections(), node(Pid) =:= node()],
 [catch rabbit_networking:close_connection(
   lists:nth(1 + {number} rem length(Pids), Pids), {reason}) || length(Pids) > 0]
end
"""
_DELETE_QUEUE = """
begin
 {{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r({vhost}, queue, {name})),
 {{ok, _}} = rabbit_amqqueue:delete(Queue, false, false, <<"tests">>)
end
"""
_COUNT_CONSUMERS = """
begin
 {{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r({vhost}, queue, {name})),
 io:format("~b", [length(rabbit_amqqueue:consumers(Queue))])
end
"""
_ADD_USER = """
ok = rabbit_auth_backend_internal:add_user({name}, {password}, <<"tests">>)
"""
_DELETE_USER = """
ok = rabbit_auth_backend_internal:delete_user({name}, <<"tests">>)
"""
_PERMIT = """
ok = rabbit_auth_backend_internal:set_permissions(
 {name}, {vhost}, {configure}, {write}, {read}, <<"tests">>)
"""
_ADD_VHOST = """
ok = rabbit_vhost:add({name}, <<"tests">>)
"""
_DELETE_VHOST = """
ok = rabbit_vhost:delete({name}, <<"tests">>)
"""
_LIST_EXCHANGES = """
[io:format("~ts\\n", [element(4, element(2, Exchange))]) ||
 Exchange <- rabbit_exchange:list(<<"/">>)]
"""
_GET_ARGUMENTS = """
begin
 {{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, {name})),
 [io:format("~ts\\t~tp\\n", [Key, Value]) || {{Key, _, Value}} <- amqqueue:get_arguments(Queue)]
end
"""
_SET_POLICY = """
ok = rabbit_policy:parse_set(
 <<"/">>, {pattern}, {pattern}, {definition}, 0, {kind}, <<"tests">>)
"""
_CLEAR_POLICY = """
ok = rabbit_policy:delete(<<"/">>, {pattern}, <<"tests">>)
"""
_LIST_RUNNING_NODES = """
[io:format("~s~n", [Node]) ||
 Node <- rabbit_nodes:all_running(), rpc:call(Node, rabbit, is_running, []) =:= true]
"""
_SET_MEMORY_LIMIT = """
vm_memory_monitor:set_vm_memory_high_watermark({part_of_memory})
"""
_GET_SETTING = """
io:format("~p", [element(2, application:get_env(rabbit, {key}))])
"""
# Where RabbitMQ keeps a copy that is quicker to read, it looks only there.
_SET_SETTING = """
begin
 application:set_env(rabbit, {key}, {value}),
 [persistent_term:put({key}, {value}) || persistent_term:get({key}, none) =/= none]
end
"""

# erl_call says nothing about an expression that fails: the last line tells.
_AND_TELL_HOW_IT_ENDED = """
try {expression} of _ -> io:put_chars("\\nok")
catch Class:Reason -> io:format("\\n~0tp", [{{Class, Reason}}]) end.
"""


class RabbitMQNode:
    """A private RabbitMQ node on free ports of the loopback interface, its data in a folder of
    its own; user guest, password guest.

    As a context manager it is started, and stopped with all that belongs to it. `config` has lines
    for its rabbitmq.conf. Nothing in the system's configuration or environment changes how it
    runs, and it does not outlive the process that made it, not even if that is killed.

    One that is made `beside` another can be in a cluster with it: it uses the epmd and the Erlang
    cookie of the other, which therefore has to be started first and stopped last.

    It is bound to one CPU, so that it starts quickly; `on_all_cpus` is for measurements.

    Why not pifpaf or pytest-rabbitmq: the epmd (Erlang's name server, which every node needs) that
    comes up with their node is nobody's child and is still there after the tests, and it and the
    node's distribution port can be reached from other machines. Here both are bound to the
    loopback, and epmd is a child like the node.
    """

    host = _LOOPBACK
    username = "guest"
    password = "guest"

    def __init__(
        self,
        *,
        config: Mapping[str, str] | None = None,
        boot_timeout: float = 100.0,  # seconds; less than pytest gives a test
        beside: "RabbitMQNode | None" = None,
        on_all_cpus: bool = False,
    ) -> None:
        self._epmd_program = _program("epmd")
        self._erl_call_program = _program("erl_call")
        self._ctl_program = _program("rabbitmqctl")
        self._boot_timeout = boot_timeout
        self.port, distribution_port, own_epmd_port = free_ports(3)
        self.name = f"qam-{uuid.uuid4().hex[:12]}@localhost"
        self._folder = Path(tempfile.mkdtemp(prefix="qam-rabbitmq-"))
        self._server_program = without_plugins(_program("rabbitmq-server"), self._folder / "home")
        self._log = self._folder / "node.log"
        listener = {"listeners.tcp.local": f"{self.host}:{self.port}"}
        self._config = listener | _default_queue_type() | dict(config or {})
        self._on_all_cpus = on_all_cpus
        self._rank: int = beside._rank + 1 if beside else 0
        self._epmd_port = beside._epmd_port if beside else own_epmd_port
        self._home = beside._home if beside else self._folder  # where the Erlang cookie is made
        self._env = self._environment(distribution_port)
        self._epmd: TetheredProcess | None = None
        self._node: TetheredProcess | None = None
        self._owner_pid = os.getpid()
        atexit.register(self.stop)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The node's AMQP URL, of the vhost /."""
        return f"amqp://{self.username}:{self.password}@{self.host}:{self.port}//"

    @property
    def running(self) -> bool:
        """Whether the node's process runs."""
        return self._node is not None and self._node.alive

    def start(self) -> None:
        """Starts the node and returns when it answers on its AMQP port (after about 5 s).

        Raises RuntimeError, with the end of the node's log, if it ends instead, or does not answer
        in time; nothing is left running then.
        """
        assert not self.running, "already started"
        self._write_configuration()
        try:
            if self._rank == 0 and self._epmd is None:
                self._epmd = self._child(self._epmd_program)
            self._node = self._child(self._server_program)
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def kill(self) -> None:
        """Ends the node by SIGKILL and returns when it is gone; its data stay for `restart`.

        RabbitMQ writes half a second late which quorum queues it has. Before 4.3 one that it
        forgets so is there after the restart, and never works again; that is not what is tested.
        """
        if self.running:
            with suppress(RuntimeError, subprocess.TimeoutExpired):  # it does not answer any more
                self.evaluate(_WRITE_THE_NAMES_OF_QUORUM_QUEUES)
        self._end()

    def _end(self) -> None:
        if self._node is not None:
            self._node.kill()
            self._node = None

    def restart(self) -> None:
        """Kills the node if it runs, and starts it again: same port, same data."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """Ends everything that was started and deletes the data. Also good when not started."""
        if os.getpid() != self._owner_pid:
            return  # a forked child, whose atexit has come along: the node is not its own
        atexit.unregister(self.stop)
        self._end()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def ctl(self, *arguments: str, timeout: float = 90.0) -> str:
        """Runs rabbitmqctl on this node and returns what it prints; takes half a second or more.

        Raises RuntimeError with what it says on failure.
        """
        return self._run(self._ctl_program, "--quiet", *arguments, timeout=timeout)

    def evaluate(self, expression: str) -> str:
        """What an Erlang expression prints on the node.

        For what is asked often: erl_call is no Erlang VM, but a C program, and answers in
        milliseconds. Raises RuntimeError with Erlang's words if the expression fails.
        """
        options = ["-sname", self.name, "-e", "-fetch_stdout", "-no_result_term"]
        program = _AND_TELL_HOW_IT_ENDED.format(expression=expression)
        answer = self._run(self._erl_call_program, *options, input=program)
        printed, _, outcome = answer.rpartition("\n")
        if outcome != "ok":
            raise RuntimeError(f"{expression.strip()} failed: {outcome}")
        return printed

    def queues(self, vhost: str = "/") -> dict[str, int]:
        """The queues and how many messages each has, ready and unacknowledged. Quick."""
        lines = self.evaluate(_LIST_QUEUES.format(vhost=vhost)).splitlines()
        return {name: int(messages) for name, messages in (line.split("\t") for line in lines)}

    def connections(self) -> int:
        """How many AMQP connections there are. Quick."""
        return int(self.evaluate(_COUNT_CONNECTIONS))

    def close_all_connections(self, reason: str) -> None:
        """Closes each AMQP connection to this node, with the reason for the client. Quick."""
        self.evaluate(_CLOSE_ALL_CONNECTIONS.format(reason=_binary(reason)))

    def close_one_connection(self, number: int, reason: str) -> None:
        """Closes one of the AMQP connections to this node, if there is any. Quick."""
        self.evaluate(_CLOSE_ONE_CONNECTION.format(number=number, reason=_binary(reason)))

    def delete_queue(self, name: str, vhost: str = "/") -> None:
        """Deletes a queue with all that is in it. Quick.

        Raises RuntimeError if there is none of that name.
        """
        self.evaluate(_DELETE_QUEUE.format(name=_binary(name), vhost=_binary(vhost)))

    def arguments(self, queue: str) -> dict[str, str]:
        """What a queue was declared with, as Erlang shows it. Quick."""
        lines = self.evaluate(_GET_ARGUMENTS.format(name=_binary(queue))).splitlines()
        return dict(line.split("\t") for line in lines)

    def exchanges(self) -> set[str]:
        """The names of the exchanges. Quick."""
        return set(self.evaluate(_LIST_EXCHANGES).splitlines())

    def delete_exchange(self, name: str) -> None:
        """Deletes an exchange of the vhost `/` with its bindings; one that is not there too."""
        with amqp.Connection(f"{self.host}:{self.port}") as connection:
            connection.channel().exchange_delete(name)

    def unbind(self, queue: str, exchange: str, routing_key: str) -> None:
        """Deletes a binding of a queue of the vhost `/`, which has to exist."""
        with amqp.Connection(f"{self.host}:{self.port}") as connection:
            connection.channel().queue_unbind(queue, exchange, routing_key)

    def consumers(self, queue: str, vhost: str = "/") -> int:
        """How many consumers a queue has. Quick.

        Raises RuntimeError if there is no such queue.
        """
        answer = self.evaluate(_COUNT_CONSUMERS.format(name=_binary(queue), vhost=_binary(vhost)))
        return int(answer)

    def add_user(self, name: str, password: str) -> None:
        """Adds a user, who may do nothing yet. Quick."""
        self.evaluate(_ADD_USER.format(name=_binary(name), password=_binary(password)))

    def delete_user(self, name: str) -> None:
        """Deletes a user. Quick."""
        self.evaluate(_DELETE_USER.format(name=_binary(name)))

    def permit(self, name: str, configure: str, write: str, read: str, *, vhost: str = "/") -> None:
        """Says what a user may do, by the patterns that rabbitmqctl takes too. Quick."""
        patterns = {"configure": configure, "write": write, "read": read}
        arguments = {"name": name, "vhost": vhost, **patterns}
        self.evaluate(_PERMIT.format(**{key: _binary(arguments[key]) for key in arguments}))

    def add_vhost(self, name: str) -> None:
        """Adds a vhost, in which nobody may do anything yet. Quick."""
        self.evaluate(_ADD_VHOST.format(name=_binary(name)))

    def delete_vhost(self, name: str) -> None:
        """Deletes a vhost with all that is in it. Quick."""
        self.evaluate(_DELETE_VHOST.format(name=_binary(name)))

    def running_nodes(self) -> set[str]:
        """The names of the nodes that run in its cluster, itself included. Quick."""
        return set(self.evaluate(_LIST_RUNNING_NODES).splitlines())

    @contextmanager
    def policy(self, pattern: str, kind: str, definition: str) -> Iterator[None]:
        """Has a policy for the queues or exchanges (*kind*) whose names fit meanwhile. Quick."""
        words = {"pattern": pattern, "kind": kind, "definition": definition}
        self.evaluate(_SET_POLICY.format(**{key: _binary(words[key]) for key in words}))
        try:
            yield
        finally:
            self.evaluate(_CLEAR_POLICY.format(pattern=_binary(pattern)))

    @contextmanager
    def memory_alarm(self) -> Iterator[None]:
        """Has the node raise its memory alarm meanwhile: it takes no messages then. Quick."""
        self.evaluate(_SET_MEMORY_LIMIT.format(part_of_memory=0.0001))
        try:
            yield
        finally:
            self.evaluate(_SET_MEMORY_LIMIT.format(part_of_memory=0.4))

    @contextmanager
    def consumer_timeout(self, seconds: float) -> Iterator[None]:
        """Gives consumers this long to acknowledge, on channels that are opened meanwhile. Quick.

        A channel looks after what it has delivered only each minute; these do it four times
        within `seconds`. No line in rabbitmq.conf can change that interval.

        Who takes longer loses the channel. Since RabbitMQ 4.3 the queue looks after that itself:
        only a quorum queue does, and from a client that can be told (by basic.cancel) it takes no
        more than the consumer.
        """
        with self.settings(
            consumer_timeout=round(seconds * 1000),
            channel_tick_interval=round(seconds * 1000 / 4),
        ):
            yield

    @contextmanager
    def settings(self, **values: int) -> Iterator[None]:
        """Gives these settings other values, for connections that are opened meanwhile. Quick."""
        before = {key: self.evaluate(_GET_SETTING.format(key=key)) for key in values}
        self._set(values)
        try:
            yield
        finally:
            self._set(before)

    def _set(self, settings: Mapping[str, object]) -> None:
        for key, value in settings.items():
            self.evaluate(_SET_SETTING.format(key=key, value=value))

    def log(self) -> str:
        """All that the node has logged."""
        return self._log.read_text(errors="replace")

    def _environment(self, distribution_port: int) -> dict[str, str]:
        """This process' environment, without what would change the node, and with what makes it."""
        foreign = ("RABBITMQ_", "ERL_", "NOTIFY_SOCKET")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        folder = self._folder
        absent = str(folder / "absent")
        return inherited | {
            "HOME": str(self._home),
            "LC_ALL": "C.UTF-8",
            "ERL_CRASH_DUMP_SECONDS": "0",  # no dump, which would be in the current folder
            "ERL_EPMD_ADDRESS": self.host,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_FLAGS": _ERL_FLAGS,
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{absent}.config",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": absent,
            "RABBITMQ_CONF_ENV_FILE": absent,
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            # The start script becomes the Erlang VM then, instead of being its parent.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _child(self, program: list[str]) -> TetheredProcess:
        with nullcontext() if self._on_all_cpus else _children_on_one_cpu(self._rank):
            return TetheredProcess(program, env=self._env, output=self._log)

    def _write_configuration(self) -> None:
        lines = [f"{key} = {value}\n" for key, value in self._config.items()]
        (self._folder / "rabbitmq.conf").write_text("".join(lines))
        (self._folder / "enabled_plugins").write_text("[].\n")

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + self._boot_timeout
        while not self._answers():
            if not self.running:
                raise RuntimeError(f"RabbitMQ ended while it started:\n{self._end_of_log()}")
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"RabbitMQ not up after {self._boot_timeout} s:\n{self._end_of_log()}"
                )
            time.sleep(_POLL_INTERVAL)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=5.0) as client:
                client.sendall(_PROTOCOL_HEADER_TO_REFUSE)
                answer = client.recv(len(_PROTOCOL_HEADERS_BEGIN), socket.MSG_WAITALL)
        except OSError:
            return False
        return answer == _PROTOCOL_HEADERS_BEGIN

    def _end_of_log(self) -> str:
        return "\n".join(self.log().splitlines()[-_LINES_OF_LOG_TO_SHOW:])

    def _run(
        self,
        program: list[str],
        *arguments: str,
        input: str | None = None,
        timeout: float = 90.0,
    ) -> str:
        with _children_on_one_cpu(self._rank):
            done = subprocess.run(
                [*program, *arguments],
                env=self._env,
                input=input,
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        if done.returncode != 0:
            raise RuntimeError(f"{program[-1]} failed: {done.stderr or done.stdout}")
        return done.stdout


def queue_type() -> str:
    """The type of queues that are declared without one."""
    return os.environ.get(QUEUE_TYPE_VARIABLE) or "classic"


def _default_queue_type() -> dict[str, str]:
    return {} if queue_type() == "classic" else {"default_queue_type": queue_type()}


@contextmanager
def _children_on_one_cpu(rank: int) -> Iterator[None]:
    """What this thread starts in here is bound to one CPU, where the system can do that.

    Those of the next `rank` get another one, so that the nodes of a cluster can start together.

    An Erlang VM passes each file operation from thread to thread, and starts by looking for some
    ten thousand files. Where it is dear to wake another CPU that takes long: measured on a virtual
    machine with two, a node starts in 5 s on one of them, and in 7 to 17 s on both.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed, reverse=True)[rank % len(allowed)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface on which nobody listens, all different.

    Nobody else is given them as long as this process lives.
    """
    free: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if len(free) == count:
            break
        if _reserve(port):
            free.append(port)
    return free


def _reserve(port: int) -> bool:
    """Keeps a port from other processes that look for one, if nobody listens on it.

    By a socket of UDP, whose ports are others than those of TCP: who is to listen later, and again
    after a restart, is not disturbed. It is closed with this process.
    """
    with socket.socket() as probe, socket.socket(type=socket.SOCK_DGRAM) as reservation:
        try:
            reservation.bind((_LOOPBACK, port))
            probe.bind((_LOOPBACK, port))
        except OSError:
            return False
        reservation.detach()
    return True


def _binary(text: str) -> str:
    """A text as an Erlang binary, whatever is in it."""
    return f"<<{','.join(map(str, text.encode()))}>>"


def _program(name: str) -> list[str]:
    program = find_program(name)
    if program is None:
        raise FileNotFoundError(f"{name} was not found; {how_to_install()}")
    return program
