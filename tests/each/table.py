"""Which test files cover which module.  What is not the file of its own name is said here alone."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["common", "serialization", "broker", "protocol", "client", "server", "cli"]

#: Modules that are tested by files of other names, or by more than one.
OTHER = {
    # Names and values, on which everything else stands.
    "qam/_common/doors.py": ["common/test_logs"],
    "qam/_common/printable.py": ["common/test_logs"],
    "qam/_common/version.py": ["server/test_introspection"],
    "qam/_common/static_inspection.py": ["common/test_logs"],
    "qam/_broker/connection.py": ["broker/test_connection_thread"],
    "qam/_broker/events.py": ["broker/test_unconfirmed"],
    "qam/_broker/endpoint.py": ["broker/test_credentials"],
    "qam/_broker/messages.py": ["protocol/test_entities", "server/test_request_consumer_thread"],
    "qam/_client/pending_call.py": ["client/test_call_fates"],
    "qam/_serialization/strangers.py": ["serialization/test_refusals"],
    "qam/_protocol/hidden_names.py": ["server/test_method_registry"],
    # Ways to make a call: what each promises is tested where it is promised.
    "qam/_client/call_options.py": ["scenarios/test_call_options"],
    "qam/_client/client_threads.py": ["scenarios/test_connecting_late"],
    "qam/_client/waited_calls.py": ["scenarios/test_qam_proxy"],
    "qam/_common/served_call.py": ["scenarios/test_call_options"],
    "qam/_common/own_locks.py": ["scenarios/test_finalizers", "scenarios/test_qam_proxy"],
    "qam/_protocol/multicalls.py": ["protocol/test_multicalls", "scenarios/test_multicalls"],
    "qam/_server/event_loop_thread.py": ["server/test_coroutines"],
    "qam/_server/settings.py": ["server/test_worker_pool"],
    # The command line: its mistakes are tested together, and so are the options of all commands.
    "qam/_cli/description.py": ["cli/test_methods"],
    "qam/_cli/options.py": ["cli/test_commands", "cli/test_call"],
    "qam/_cli/running.py": ["cli/test_mistakes", "cli/test_commands", "cli/test_ping"],
    # What errors look like, which the two sides of their way show.
    "qam/_common/error_texts.py": ["serialization/test_remote_errors", "protocol/test_replies"],
    "qam/_protocol/replies.py": ["protocol/test_replies", "serialization/test_remote_errors"],
    # One reader of pickles in many parts: its tests give it pickles, and look at what comes out.
    "qam/_serialization/dates_and_times.py": ["serialization/test_checked_values"],
    "qam/_serialization/enum_members.py": ["serialization/test_checked_values"],
    "qam/_serialization/envelope.py": [
        "serialization/test_envelope",
        "serialization/test_readers_agree",
    ],
    "qam/_serialization/hash_bounds.py": ["serialization/test_costs"],
    "qam/_serialization/known_names.py": [
        "serialization/test_unpickler",
        "serialization/test_checked_values",
        "serialization/test_looking_up_names",
    ],
    "qam/_serialization/numpy_names.py": ["serialization/test_unpickler"],
    "qam/_serialization/opcode_scan.py": [
        "serialization/test_opcode_scan",
        "serialization/test_readers_agree",
    ],
    "qam/_serialization/opcodes.py": ["serialization/test_one_parser"],
    "qam/_serialization/plain_bounds.py": ["serialization/test_costs"],
    "qam/_serialization/pure_paths.py": ["serialization/test_checked_values"],
    "qam/_serialization/remote_errors.py": [
        "serialization/test_remote_errors",
        "serialization/test_serializers",
        "serialization/test_unpickler",
    ],
    "qam/_serialization/trust.py": ["serialization/test_unpickler"],
    "qam/_serialization/unpickler.py": [
        "serialization/test_unpickler",
        "serialization/test_readers_agree",
    ],
    # Parts of one thread, which is tested with them.
    "qam/_broker/connect.py": ["broker/test_connection_thread", "scenarios/test_connecting_late"],
    "qam/_broker/connect_errors.py": [
        "broker/test_connect_errors",
        "broker/test_rabbitmq",
        "broker/test_tls",
    ],
    "qam/_broker/transport.py": ["broker/test_transport", "broker/test_rabbitmq"],
    "qam/_broker/loan.py": ["broker/test_connection_thread"],
    "qam/_broker/publishing_thread.py": [
        "client/test_publisher_thread",
        "server/test_publisher_thread",
    ],
    # What they log and show of themselves is tested in one place.
    "qam/_common/logs.py": ["common/test_logs", "common/test_log_thread"],
    "qam/_broker/credentials.py": ["broker/test_credentials", "common/test_logs"],
    "qam/_client/call_stations.py": ["client/test_call_stations", "common/test_logs"],
    "qam/_client/execute_callback_thread.py": [
        "client/test_callback_observer_thread",
        "common/test_logs",
    ],
    "qam/_client/ready_callbacks.py": ["client/test_callback_observer_thread", "common/test_logs"],
    "qam/_server/publisher_thread.py": ["server/test_publisher_thread", "common/test_logs"],
    "qam/_server/call.py": ["server/test_call", "server/test_intake"],
    "qam/_server/dropped_replies.py": ["server/test_publisher_thread", "server/test_threads"],
    "qam/_server/messages.py": ["server/test_messages", "server/test_request_consumer_thread"],
    "qam/_server/request_queue.py": ["server/test_request_consumer_thread"],
    "qam/_server/siblings.py": ["server/test_siblings", "server/test_sibling_words"],
}

_BY_PICKLES = "some of it only hostile pickles reach, which tests/scenarios and the sweep make"
_INTERRUPTED = "the test that interrupts it traces it itself, and coverage sees nothing of that"
#: Why the tests of these modules do not cover enough of them.
BELOW = {
    "qam/_common/fork.py": "what it does is done in a forked child, where nothing is measured",
    "qam/_client/method_queue.py": _INTERRUPTED,
    "qam/_client/result_list.py": _INTERRUPTED,
    "qam/_serialization/plain_bounds.py": _BY_PICKLES,
    "qam/_serialization/pure_paths.py": "a half of it is for Python 3.12 alone",
}


def modules() -> list[str]:
    """Return the paths of the modules that have unit tests: all but the doors."""
    return [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sorted((ROOT / f"qam/_{package}").glob("*.py"))
        if path.name != "__init__.py"
    ]


def files_that_test(module: str) -> list[str]:
    """Return the test files that together cover *module*; none if there are none."""
    if module in OTHER:
        return [f"tests/{name}.py" for name in OTHER[module]]
    own = _own_test_file(module)
    return [own] if (ROOT / own).exists() else []


def _own_test_file(module: str) -> str:
    path = Path(module)
    return f"tests/{path.parent.name.removeprefix('_')}/test_{path.name}"


def faults_of_the_table() -> list[str]:
    """Return what is wrong with it: what it names and is not there, what it need not name."""
    known = set(modules())
    faults = [f"{module}: is no module" for module in [*OTHER, *BELOW] if module not in known]
    for module in modules():
        if not files_that_test(module) and module not in BELOW:
            faults.append(f"{module}: has no test file of its own")
        faults += [
            f"{module}: {file} is no file"
            for file in files_that_test(module)
            if not (ROOT / file).exists()
        ]
    used = {file for module in known for file in files_that_test(module)}
    return faults + [
        f"{file}: names no module"
        for package in PACKAGES
        for path in sorted((ROOT / f"tests/{package}").glob("test_*.py"))
        if (file := str(path.relative_to(ROOT))) not in used
    ]
