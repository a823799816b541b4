"""A restricted unpickler: it builds plain values and trusted classes, nothing else.

1. :mod:`qam._serialization.opcode_scan` scans the opcodes before any is executed.
2. The C unpickler builds a pickle without names.  It gets all bytes at once, so that it does
   not depend on frames.
3. The unpickler in Python builds all other pickles, and checks every call: only what a name in
   the tables stands for is called, and a message can't change it.
"""

import datetime
import fractions
import io
import pickle  # the unpickler here restricts it  # nosec B403
from collections import Counter, OrderedDict, defaultdict, deque
from math import isinf
from struct import Struct
from typing import Any, ClassVar

from qam._common.error_inspection import find_class, is_error_class
from qam._common.static_inspection import Name, name_of
from qam._serialization import (
    dates_and_times,
    enum_members,
    memory_bounds,
    numpy_names,
    opcode_scan,
)
from qam._serialization.cost_bounds import Bounds
from qam._serialization.instance_states import is_process_wide, may_be_shared, set_state
from qam._serialization.known_names import (
    BASES,
    CALLED_WITH_VALUES,
    CONSTRUCTORS,
    CONTAINERS,
    EXCEPTIONS,
    FILLED_LATER,
    LEAVES,
    MAX_BITS,
    NAMED_ONLY,
    SIZED,
    VALUES,
    attribute,
    cost_of_fraction,
    named_zone,
    new_object,
    python_3_name,
    reconstructor,
    stand_in,
    unicode_decode_error,
    zone_info,
)
from qam._serialization.refusals import NotTrustedError
from qam._serialization.remote_errors import (
    ErrorMaker,
    check_unicode_error,
    decode_error_of_python_2,
)
from qam._serialization.strangers import Stranger
from qam._serialization.trust import Trusted

# Python 2 writes the bytes in it as a byte string, which is read as text if it is UTF-8.
_PYTHON_2_DECODE_ERROR = ("exceptions", "UnicodeDecodeError")

_MAX_NAME = 500  # characters of a module's name and a name inside it together
# So many names of classes that are not trusted are kept, to be told all at once.
_MAX_REFUSED = 50


def loads(
    body: bytes,
    trusted: Trusted,
    strangers: list[Name] | None = None,
    unpickler: "type[CarefulUnpickler] | None" = None,
) -> Any:
    """Return the value that *body* encodes; a byte string of Python 2 becomes text if it is UTF-8.

    :param trusted: the classes and functions that may be used beside those of the tables.
    :param strangers: None to refuse what is not trusted.  Given a list, a :class:`Stranger`
        replaces what is not trusted, and the list gets its name.
    :param unpickler: decodes a body that has names; by default CarefulUnpickler.
    :raises NotTrustedError: *body* names things that are not trusted.
    :raises pickle.UnpicklingError: *body* is no pickle, or exceeds a limit.
    :raises Exception: anything else that a broken pickle, or building a trusted class, raises.
    """
    if opcode_scan.is_plain(body):
        try:  # no suppress(), which costs time
            return pickle.loads(body, encoding="utf-8")  # it names nothing  # nosec B301
        except UnicodeDecodeError:  # a byte string of Python 2; CarefulUnpickler reads it as bytes
            pass
    return (unpickler or CarefulUnpickler)(body, trusted, strangers).load()


# --- the careful unpickler --------------------------------------------------------------

_PythonUnpickler: Any = pickle._Unpickler


# Fills the places of the memo that a message skips.
_NOTHING = object()
_INDEX = Struct("<I")


class CarefulUnpickler(_PythonUnpickler):
    """Checks every call, state and item before it executes the opcode."""

    dispatch: ClassVar[dict[int, Any]] = dict(_PythonUnpickler.dispatch)
    proto, fix_imports, encoding, errors = 0, True, "utf-8", "strict"

    def __init__(self, body: bytes, trusted: Trusted, strangers: list[Name] | None) -> None:
        # The attributes of the base class, but for frames, which this class ignores.
        stream = io.BytesIO(body)
        self.read, self.readline, self.readinto = stream.read, stream.readline, stream.readinto
        self.stack: list[Any] = []
        self.metastack: list[list[Any]] = []
        self.append = self.stack.append
        self.memo: list[Any] = []
        self._memo_has_gaps = False
        self._trusted = trusted
        self._strangers = strangers
        self._refused: list[Name] = [] if strangers is None else strangers
        self._bounds = Bounds(len(body), memory_bounds.check(body)[1])
        self._errors = ErrorMaker(self._bounds.spend, for_one_message=True)
        # The classes and functions that the message has named so far; nothing else may be called.
        # By id.  Each is kept here, so that no other object gets its id.
        self._named: dict[int, Any] = {id(named_zone): named_zone}

    def load(self) -> Any:
        """Execute the opcodes, and return the value that they build."""
        try:
            value = self._execute()
        except Exception as error:
            if self._refused:  # perhaps because a Stranger can't be used like the instance
                raise NotTrustedError(self._refused) from error
            raise
        if self._builds_no_more:
            raise NotTrustedError(self._refused)
        return value

    def _execute(self) -> Any:
        read, dispatch = self.read, self.dispatch
        try:
            while True:
                dispatch[read(1)[0]](self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]
            self._bounds.check_exceptions()
            return stop.value

    @property
    def _builds_no_more(self) -> bool:
        """True once a name was refused: the rest is read only to find the other such names."""
        return bool(self._refused) and self._strangers is None

    def load_frame(self) -> None:
        self.read(8)

    dispatch[pickle.FRAME[0]] = load_frame

    # --- the memo: a list, which takes a tenth of the memory of a dict --------------------

    def load_memoize(self) -> None:
        if self._memo_has_gaps:
            raise pickle.UnpicklingError("the message fills the memo in two ways at once")
        self.memo.append(self.stack[-1])

    dispatch[pickle.MEMOIZE[0]] = load_memoize

    def _put(self, index: int) -> None:
        memo = self.memo
        if index < len(memo):
            memo[index] = self.stack[-1]
            return
        if index > len(memo):  # the scan ensures that index is below the size of the message
            self._memo_has_gaps = True
            memo.extend([_NOTHING] * (index - len(memo)))
        memo.append(self.stack[-1])

    def _get(self, index: int) -> None:
        found = self.memo[index] if 0 <= index < len(self.memo) else _NOTHING
        if found is _NOTHING:
            raise pickle.UnpicklingError(f"the memo has nothing at the index {index}")
        self._bounds.take_again(found)
        self.append(found)

    def load_put(self) -> None:
        self._put(int(self.readline()[:-1]))

    dispatch[pickle.PUT[0]] = load_put

    def load_binput(self) -> None:
        self._put(self.read(1)[0])

    dispatch[pickle.BINPUT[0]] = load_binput

    def load_long_binput(self) -> None:
        self._put(_INDEX.unpack(self.read(4))[0])

    dispatch[pickle.LONG_BINPUT[0]] = load_long_binput

    def load_get(self) -> None:
        self._get(int(self.readline()[:-1]))

    dispatch[pickle.GET[0]] = load_get

    def load_binget(self) -> None:
        self._get(self.read(1)[0])

    dispatch[pickle.BINGET[0]] = load_binget

    def load_long_binget(self) -> None:
        self._get(_INDEX.unpack(self.read(4))[0])

    dispatch[pickle.LONG_BINGET[0]] = load_long_binget

    def load_dup(self) -> None:
        self._bounds.take_again(self.stack[-1])
        super().load_dup()

    dispatch[pickle.DUP[0]] = load_dup

    def load_float(self) -> None:
        text = self.readline()[:-1]
        value = float(text)
        if isinf(value) and b"inf" not in text:  # the C unpickler refuses it, float() does not
            raise pickle.UnpicklingError("a number of the message is too large for a float")
        self.append(value)

    dispatch[pickle.FLOAT[0]] = load_float

    def _decode_string(self, value: bytes) -> str | bytes:
        """Return a byte string of Python 2 as text if it is UTF-8."""
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value

    # --- names ---------------------------------------------------------------------------

    def find_class(self, module: str, name: str) -> Any:
        found = self._find((module, name))
        self._named[id(found)] = found
        return found

    def _find(self, old_name: Name) -> Any:
        if len(old_name[0]) + len(old_name[1]) > _MAX_NAME:
            raise pickle.UnpicklingError("a name in the message is too long")
        if old_name == _PYTHON_2_DECODE_ERROR:
            return unicode_decode_error
        if (own := self._trusted.find(old_name)) is not None:
            return own  # before any translation from Python 2, which had such a name, too
        name = python_3_name(old_name)
        for look_up in (
            *(stand_in, VALUES.get, numpy_names.find),
            *(self._find_trusted, EXCEPTIONS.get, self._find_imported),
        ):
            found = look_up(name)
            if found is not None:
                return found
        if name not in self._refused and len(self._refused) < _MAX_REFUSED:
            self._refused.append(name)
        return Stranger

    def _find_trusted(self, name: Name) -> Any:
        return self._trusted.find(name)

    def _find_imported(self, name: Name) -> Any:
        # A reply may contain any exception: it is made without running code of its class.
        return None if self._strangers is None else find_class(name)

    def _is_error(self, cls: Any) -> bool:
        """Return True if *cls* is the class of an exception, and not trusted."""
        return is_error_class(cls) and self._trusted.find(name_of(cls)) is not cls

    def _is_own_error(self, cls: Any) -> bool:
        # Such a class must be no default_factory, which would be called later.
        return self._is_error(cls) and name_of(cls)[0] != "builtins"

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError("the extension registry is not trusted")

    # --- calls: only of named classes and functions, within the budget -----------------

    def _call(self, called: Any, args: Any) -> Any:
        """Call *called* with *args* if that is allowed, and return its result."""
        self._check_named(called, args)
        if self._builds_no_more:
            return self._nothing()
        if called is new_object:
            return self._new(args[0], args[1:])
        if called is reconstructor:
            return self._reconstruct(*args)
        if called is attribute:
            return self._attribute(*args)
        if called is unicode_decode_error:
            called, args = UnicodeDecodeError, decode_error_of_python_2(*args)
        if called is Stranger or self._is_error(called):
            return self._make_error(called, args)
        if called in FILLED_LATER and args:
            raise pickle.UnpicklingError(
                f"a message may call {called.__name__} only without arguments"
            )
        self._check_call(called, args)
        if enum_members.is_enum(called):
            return enum_members.member(called, args)
        made = self._bounds.deepen(CONSTRUCTORS.get(called, called)(*args), args)
        dates_and_times.check(made)
        check_unicode_error(made)
        if called is numpy_names.empty_array:
            self._bounds.begin_array(made)
        return made

    def _nothing(self) -> Stranger:
        self._bounds.call(Exception)
        return Stranger()

    def _make_error(self, cls: Any, args: tuple[Any, ...]) -> Any:
        self._bounds.call(Exception)  # not cls itself, whose metaclass may define a hash
        if cls is Stranger:
            return Stranger(*self._errors.plain_args(args))
        return self._errors.make(cls, args)

    def _reconstruct(self, cls: Any, base: Any, state: Any) -> Any:
        """Make an object as protocols 0 and 1 write it; *base* may be a builtin such as list."""
        if base is object:
            return self._new(cls, ())
        self._check_named(cls, (state,))
        plain = issubclass(type(cls), type) and not enum_members.is_enum(cls)
        if not plain or type(state) is not base or base not in BASES:
            raise pickle.UnpicklingError(
                "an object is not in the form that protocols 0 and 1 write"
            )
        self._bounds.spend_on([state])
        made = base.__new__(cls, state)
        if base.__init__ is not object.__init__:
            base.__init__(made, state)
        return self._bounds.deepen(made, [state])

    def _attribute(self, owner: Any = None, name: Any = None, *more: Any) -> Any:
        """Return the name inside a trusted class that older protocols write as ``getattr``."""
        if owner is Stranger:
            return Stranger
        if issubclass(type(owner), type) and type(name) is str:
            if owner is zone_info() and name == "_unpickle":
                return named_zone
            if enum_members.is_enum(owner) and self._find_trusted(name_of(owner)) is owner:
                return owner.__members__[name]
            inner = (name_of(owner)[0], f"{name_of(owner)[1]}.{name}")
            if (found := self._find_trusted(inner) or self._find_imported(inner)) is not None:
                self._named[id(found)] = found
                return found
        raise pickle.UnpicklingError("getattr is not trusted; a message may not read attributes")

    def _new(self, cls: Any, args: Any, kwargs: Any = None) -> Any:
        """Return a new instance of *cls*, without calling its ``__init__``."""
        if not issubclass(type(cls), type):
            raise pickle.UnpicklingError("a message may make instances of classes only")
        self._check_named(cls, args)
        if self._builds_no_more:
            return self._nothing()
        if cls is Stranger or self._is_error(cls):
            return self._make_error(cls, args)
        if cls in CONSTRUCTORS:
            raise pickle.UnpicklingError(f"{cls.__name__} can be made only by a call")
        self._check_call(cls, args)
        if enum_members.is_enum(cls):
            return enum_members.member(cls, args)
        made = self._bounds.deepen(cls.__new__(cls, *args, **(kwargs or {})), args)
        dates_and_times.check(made)
        return made

    def _check_named(self, called: Any, args: Any) -> None:
        if self._named.get(id(called)) is not called or type(args) is not tuple:
            raise pickle.UnpicklingError(
                "a message may call only a class or function that it names"
            )

    def _check_call(self, called: Any, args: Any) -> None:
        self._bounds.call(called)
        if called in NAMED_ONLY:
            raise pickle.UnpicklingError(f"a message may not call {called.__name__}")
        if called in CALLED_WITH_VALUES:
            self._bounds.spend_on(args, self._check_leaf)
            self._check_items(called, args)
        elif issubclass(type(called), type) and issubclass(called, BaseException):
            self._bounds.spend_on(args)
        else:  # a trusted class or function, or a stand-in, which checks its arguments itself
            self._bounds.spend(len(args) + sum(len(arg) for arg in args if type(arg) in SIZED))
            if called is fractions.Fraction:
                self._bounds.spend(cost_of_fraction(args))
        self._bounds.take_items(called, args)

    def _check_items(self, called: Any, args: Any) -> None:
        """Check the keys that a new container gets as arguments."""
        if args and called in (set, frozenset, Counter):
            self._bounds.check_keys(args[0], None, called is not Counter)
        elif called in (OrderedDict, defaultdict):  # Python 2 writes an OrderedDict as pairs
            for pairs in args:
                if type(pairs) in CONTAINERS and type(pairs) is not dict:
                    self._bounds.check_keys([key for key, _ in pairs], None)

    def _check_leaf(self, value: Any) -> None:
        if type(value) is int and value.bit_length() > MAX_BITS:
            raise pickle.UnpicklingError("a whole number is too long for an argument")
        if type(value) in LEAVES or type(value) in (Stranger, zone_info()):
            return
        if issubclass(type(value), datetime.tzinfo) and id(type(value)) in self._named:
            return
        if self._named.get(id(value)) is not value or self._is_own_error(value):
            raise pickle.UnpicklingError(f"{type(value).__name__} is no plain argument")

    # --- the opcodes that call --------------------------------------------------------------

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_newobj(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._new(self.stack[-1], args)

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_newobj_ex(self) -> None:
        kwargs = self.stack.pop()
        args = self.stack.pop()
        if type(kwargs) is not dict:
            raise pickle.UnpicklingError("the keyword arguments are no dict")
        self._bounds.spend_on(kwargs.values())
        self.stack[-1] = self._new(self.stack[-1], args, kwargs)

    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex

    def _instantiate(self, klass: Any, args: Any) -> None:
        # Python 2 makes instances of its old-style classes without calling them.
        plain = isinstance(klass, type) and not args
        self.append(self._new(klass, ()) if plain else self._call(klass, tuple(args)))

    # --- states: of instances only, and no special attributes ---------------------------

    def load_build(self) -> None:
        state = self.stack.pop()
        instance = self.stack[-1]
        if issubclass(type(instance), type) or self._named.get(id(instance)) is instance:
            raise pickle.UnpicklingError(
                "a message may not change a class or function that it names"
            )
        if self._builds_no_more:
            return
        if numpy_names.is_dtype(instance):
            self._bounds.spend_on([state])
            self._replace_top(numpy_names.dtype_with_state(instance, state))
        elif numpy_names.is_array(instance):
            self._set_array_state(instance, state)
        elif may_be_shared(instance):
            raise pickle.UnpicklingError(f"a message may not change a {type(instance).__name__}")
        elif self._is_error(type(instance)):
            self._errors.set_state(instance, state)
        else:
            self._bounds.take_state(state)
            set_state(instance, state)
            check_unicode_error(instance)

    dispatch[pickle.BUILD[0]] = load_build

    def _set_array_state(self, array: Any, state: Any) -> None:
        self._bounds.take_state(state)
        checked = numpy_names.array_state(array, state)
        self._bounds.finish_array(array, checked[-1] if type(checked[-1]) is list else ())
        array.__setstate__(checked)

    def _replace_top(self, made: Any) -> None:
        """Replace the object on top of the stack by *made*, also in the memo.

        Objects that already refer to the replaced one keep it.
        """
        before, self.stack[-1] = self.stack[-1], made
        self._bounds.spend(len(self.memo))
        for place, value in enumerate(self.memo):
            if value is before:
                self.memo[place] = made

    # --- items: only for containers, and with keys that are cheap to hash ----------------

    def _check_container(self, container: Any, *kinds: type) -> None:
        if not issubclass(type(container), (Stranger, *kinds)) or is_process_wide(container):
            raise pickle.UnpicklingError("a message may fill only containers")

    def load_append(self) -> None:
        self._check_container(self.stack[-2], list, deque)
        self._bounds.check_nesting(self.stack[-2], self.stack[-1:])
        super().load_append()

    dispatch[pickle.APPEND[0]] = load_append

    def load_appends(self) -> None:
        self._check_container(self.metastack[-1][-1], list, deque)
        self._bounds.check_nesting(self.metastack[-1][-1], self.stack)
        super().load_appends()

    dispatch[pickle.APPENDS[0]] = load_appends

    def load_setitem(self) -> None:
        self._check_container(self.stack[-3], dict)
        self._bounds.check_keys([self.stack[-2]], self.stack[-3])
        self._bounds.check_nesting(self.stack[-3], self.stack[-1:])
        super().load_setitem()

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        self._check_container(self.metastack[-1][-1], dict)
        self._bounds.check_keys(self.stack[::2], self.metastack[-1][-1])
        self._bounds.check_nesting(self.metastack[-1][-1], self.stack[1::2])
        super().load_setitems()

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_dict(self) -> None:
        self._bounds.check_keys(self.stack[::2], None)
        super().load_dict()

    dispatch[pickle.DICT[0]] = load_dict

    def load_additems(self) -> None:
        self._check_container(self.metastack[-1][-1], set)
        self._bounds.check_keys(self.stack, self.metastack[-1][-1], is_set=True)
        super().load_additems()

    dispatch[pickle.ADDITEMS[0]] = load_additems

    def load_frozenset(self) -> None:
        self._bounds.check_keys(self.stack, None, is_set=True)
        super().load_frozenset()

    dispatch[pickle.FROZENSET[0]] = load_frozenset
