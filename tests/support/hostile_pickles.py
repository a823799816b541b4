"""Pickles that nobody should obey: known ways to run code by one, and ways to cost much.

They are written opcode by opcode: what a pickler would write depends on the Python that runs it.
"""

import pickle
import struct
from collections.abc import Callable
from typing import Any

Gadget = tuple[str, str, tuple[Any, ...]]  # module, name, arguments

MARK = "qam-gadget"  #: Stands in what each gadget would run, open or import.

#: What a message may not call: each would run code, open a file, import, or reach further.
GADGETS: list[Gadget] = [
    ("os", "system", (f"true {MARK}",)),
    ("posix", "system", (f"true {MARK}",)),
    ("os", "popen", (f"true {MARK}",)),
    ("subprocess", "Popen", (["true", MARK],)),
    ("subprocess", "check_output", (["true", MARK],)),
    ("pty", "spawn", (["true", MARK],)),
    ("builtins", "eval", (f"'{MARK}'",)),
    ("__builtin__", "eval", (f"'{MARK}'",)),
    ("builtins", "exec", (f"'{MARK}'",)),
    ("builtins", "compile", ("1", MARK, "eval")),
    ("builtins", "open", (MARK, "w")),
    ("io", "open", (MARK, "w")),
    ("io", "FileIO", (MARK, "w")),
    ("__builtin__", "file", (MARK, "w")),
    ("pathlib", "PosixPath", (MARK,)),
    ("builtins", "__import__", ("this",)),
    ("importlib", "import_module", ("this",)),
    ("builtins", "setattr", ("text", "x", 1)),
    ("builtins", "delattr", ("text", "x")),
    ("builtins", "vars", ()),
    ("builtins", "globals", ()),
    ("builtins", "map", (1, ())),
    ("builtins", "filter", (1, ())),
    ("builtins", "type", ("Made", (), {})),
    ("builtins", "super", ()),
    ("functools", "partial", (1,)),
    ("functools", "reduce", (1, [1, 2])),
    ("operator", "attrgetter", ("__class__",)),
    ("operator", "itemgetter", (0,)),
    ("operator", "methodcaller", ("format",)),
    ("itertools", "starmap", (1, ())),
    ("_codecs", "lookup", ("utf-8",)),
    ("_codecs", "decode", (b"x", "zip")),
    ("codecs", "open", (MARK, "w")),
    ("codecs", "getreader", ("utf-8",)),
    ("copyreg", "add_extension", ("os", "system", 240)),
    ("copy_reg", "add_extension", ("os", "system", 240)),
    ("copyreg", "pickle", (1, 1)),
    ("copyreg", "constructor", (1,)),
    ("copyreg", "__reduce_ex__", (1, 2)),
    ("pickle", "loads", (b"N.",)),
    ("_pickle", "loads", (b"N.",)),
    ("marshal", "loads", (b"N",)),
    ("types", "FunctionType", ()),
    ("types", "CodeType", ()),
    ("types", "MethodType", (1, 1)),
    ("types", "ModuleType", ("made",)),
    ("sys", "exit", ()),
    ("os", "_exit", (1,)),
    ("os", "remove", (MARK,)),
    ("shutil", "rmtree", (MARK,)),
    ("socket", "create_connection", (("127.0.0.1", 9),)),
    ("ctypes", "CDLL", (MARK,)),
    ("threading", "Thread", ()),
    ("logging", "FileHandler", (MARK,)),
    ("tempfile", "mktemp", ()),
    ("builtins", "SystemExit", ()),
    ("builtins", "KeyboardInterrupt", ()),
    ("qam", "trust", ("os",)),
    ("qam._trust", "trust", ("os",)),
    # a dotted name reaches nothing
    ("collections", "abc.sys.modules", ()),
    ("uuid", "os.system", (f"true {MARK}",)),
    ("builtins", "str.format", ("{0.__class__}", 1)),
    ("builtins", "object.__subclasses__", ()),
]


def _text(text: str) -> bytes:
    octets = text.encode()
    return b"X" + struct.pack("<I", len(octets)) + octets


def _value(value: Any) -> bytes:
    """What puts *value* on the stack, in opcodes that every protocol since 2 has."""
    return pickle.dumps(value, 2)[2:-1]


def _items(values: tuple[Any, ...]) -> bytes:
    return b"".join(map(_value, values))


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _by_global(module: str, name: str, arguments: tuple[Any, ...]) -> bytes:
    return b"\x80\x02" + _name(module, name) + b"(" + _items(arguments) + b"tR."


def _by_stack_global(module: str, name: str, arguments: tuple[Any, ...]) -> bytes:
    name_on_stack = _text(module) + _text(name) + b"\x93"
    return b"\x80\x04" + name_on_stack + b"(" + _items(arguments) + b"tR."


def _by_inst(module: str, name: str, arguments: tuple[Any, ...]) -> bytes:
    return b"(" + _items(arguments) + f"i{module}\n{name}\n.".encode()


def _by_obj(module: str, name: str, arguments: tuple[Any, ...]) -> bytes:
    return b"(" + _name(module, name) + _items(arguments) + b"o."


def _by_newobj(module: str, name: str, arguments: tuple[Any, ...]) -> bytes:
    return b"\x80\x02" + _name(module, name) + b"(" + _items(arguments) + b"t\x81."


def _by_newobj_ex(module: str, name: str, arguments: tuple[Any, ...]) -> bytes:
    return b"\x80\x04" + _name(module, name) + b"(" + _items(arguments) + b"t}\x92."


#: The ways in which a pickle calls something.
CALLS: dict[str, Callable[[str, str, tuple[Any, ...]], bytes]] = {
    "GLOBAL": _by_global,
    "STACK_GLOBAL": _by_stack_global,
    "INST": _by_inst,
    "OBJ": _by_obj,
    "NEWOBJ": _by_newobj,
    "NEWOBJ_EX": _by_newobj_ex,
}


def calling(module: str, name: str, *arguments: Any) -> bytes:
    """A pickle that calls something by its name."""
    return _by_global(module, name, arguments)


def _range(stop: int) -> bytes:
    return _name("builtins", "range") + b"(K\x00" + _value(stop) + b"K\x01tR"


#: What would cost much memory or time, or goes around the names.
BOMBS = {
    "memo": b"\x80\x02]r\xff\xff\xff\x0f.",
    "old memo": b"]p9999999999\n.",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**45) + b".",
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**45) + b".",
    "text": b"\x80\x02X\xff\xff\xff\x7f.",
    "long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**45) + b".",
    "extension 1": b"\x82\x01.",
    "extension 4": b"\x84\x01\x00\x00\x00.",
    "persistent id": b"Px\n.",
    "buffer": b"\x80\x05\x97.",
    "no opcode": b"\xff.",
    "nothing": b"",
    "no end": b"N",
    "list of a range": b"\x80\x02" + _name("builtins", "list") + _range(10**8) + b"\x85R.",
    "tuple of a range": b"\x80\x02" + _name("builtins", "tuple") + _range(10**8) + b"\x85R.",
    "deque of a range": b"\x80\x02" + _name("collections", "deque") + _range(10**8) + b"\x85R.",
    "bytes of a number": calling("builtins", "bytes", 10**11),
    "bytearray of a number": calling("builtins", "bytearray", 10**11),
    "huge range": b"\x80\x02" + _range(10**12) + b".",
    "fraction": calling("fractions", "Fraction", "1e999999999"),
    "copies": b"\x80\x02]q\x00("
    + b"K\x01" * 5000
    + b"e0"
    + b"".join(b"c__builtin__\nlist\nh\x00\x85R0" for _ in range(5000))
    + b"N.",
}
