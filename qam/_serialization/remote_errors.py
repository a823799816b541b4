"""Makes exceptions of a class, arguments and attributes without running code of the class.

The code of an exception class in a message is not trusted, and the builtin classes do not check
the fields that they keep in C.  So an exception from a message is made by the builtin class whose
memory layout it has, with checked copies of plain values.  If that is not possible, a
:class:`RemoteException` stands for it.
"""

import json
import pickle  # for its errors only  # nosec B403
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from types import NoneType
from typing import Any

from qam._common.error_inspection import (
    ATTRIBUTES,
    BUILTIN,
    MAX_NAME,
    MAX_TEXT,
    NOTES,
    all_of_type,
    args_and_state,
    args_of,
    defines,
    find_class,
    full_name,
    is_number,
    is_syntax_error,
    may_be_raised,
    text_of_args,
)
from qam._common.plain_values import MAX_ITEMS, Allowance, NotPlainError, cut_octets, spend_nothing
from qam._common.static_inspection import base_of, layout_of, mro_of, name_of, namespace_of
from qam.exceptions import RemoteException

# The methods by which a class customizes how its instances are pickled, inspected and freed.
_ACTS = frozenset(
    {
        *("__reduce__", "__reduce_ex__", "__getnewargs__", "__getnewargs_ex__"),
        *(
            "__getstate__",
            "__setstate__",
            "__getattribute__",
            "__getattr__",
            "__class__",
            "__del__",
        ),
    }
)
# The cost of an exception and of a RemoteException, in items, without its arguments.
_COST, _COST_OF_REMOTE = 5, 40
_CHARACTERS_KEPT = 8  # so many characters cost about as much as an item

_MAX_ERRNO = 2**31


def _maker_of(cls: type) -> Any:
    """Return the class whose constructor can make instances of *cls*; None if there is none."""
    if cls is json.JSONDecodeError:  # its constructor is known, and sets its attributes
        return cls
    if not (may_be_raised(cls) or cls is BaseExceptionGroup) or any(
        map(_customizes_instances, mro_of(cls))
    ):
        return None
    if defines(type(cls), "__subclasscheck__"):  # Python runs it whenever one is raised
        return None
    base = cls
    while id(base) not in BUILTIN:
        base = base_of(base)
    return base if layout_of(base) == layout_of(cls) else None


def _customizes_instances(cls: type) -> bool:
    """Return True if *cls* customizes how its instances are stored, pickled, inspected or freed."""
    if id(cls) in BUILTIN:
        return False
    namespace = namespace_of(cls) or {}
    slots = namespace.get("__slots__", ())
    return type(slots) is not tuple or bool(slots) or not _ACTS.isdisjoint(namespace)


def _is_unicode_error(args: tuple[Any, ...], kind: type) -> bool:
    if len(args) != 4 or not all_of_type(args[:1], kind) or not all_of_type(args[3:], str):
        return False
    text, start, end, _ = args
    return all_of_type((start, end), int) and 0 <= start <= end <= len(text)


def _is_unicode_error_with_encoding(args: tuple[Any, ...], kind: type) -> bool:
    return all_of_type(args[:1], str) and _is_unicode_error(args[1:], kind)


def _is_os_error(args: tuple[Any, ...]) -> bool:
    if not 2 <= len(args) <= 5:
        return True  # OSError then keeps them in args only
    errno, strerror, *names = args
    return (is_number(errno, _MAX_ERRNO, -_MAX_ERRNO) or type(errno) is str) and all_of_type(
        (strerror, *names), str, bytes, int, type(None)
    )


def _is_group(args: tuple[Any, ...]) -> bool:
    if len(args) != 2 or type(args[0]) is not str or type(args[1]) not in (list, tuple):
        return False
    return bool(args[1]) and all(issubclass(type(each), Exception) for each in args[1])


def _is_json_decode_error(args: tuple[Any, ...]) -> bool:
    return (
        len(args) == 3
        and all_of_type(args[:2], str)
        and type(args[2]) is int
        and 0 <= args[2] <= len(args[1])
    )


_CHECKS: dict[type, Callable[[tuple[Any, ...]], bool]] = {
    UnicodeDecodeError: lambda args: _is_unicode_error_with_encoding(args, bytes),
    UnicodeEncodeError: lambda args: _is_unicode_error_with_encoding(args, str),
    UnicodeTranslateError: lambda args: _is_unicode_error(args, str),
    OSError: _is_os_error,
    SyntaxError: is_syntax_error,
    BaseExceptionGroup: _is_group,
    json.JSONDecodeError: _is_json_decode_error,
}
# The fields in C, beside the arguments, that a message may set to a text.
_TEXTS_IN_C: dict[type, frozenset[str]] = {
    ImportError: frozenset({"name", "path"}),
    AttributeError: frozenset({"name"}),
}


def check_unicode_error(error: Any) -> None:
    """Check the fields in C of *error*, which was made by its trusted class.

    :raises pickle.UnpicklingError: it is a UnicodeError that points outside of its text.
    """
    kind = next((kind for kind in _UNICODE_ERRORS if issubclass(type(error), kind)), None)
    if kind is None:
        return
    with suppress(AttributeError, TypeError):  # it has no text, so the positions are not used
        text, start, end = (vars(kind)[name].__get__(error) for name in ("object", "start", "end"))
        if not 0 <= start <= end <= len(text):
            raise pickle.UnpicklingError(f"{kind.__name__} points outside of its text")


_UNICODE_ERRORS: tuple[type, ...] = (UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError)


_SCALARS = (NoneType, bool, int, float, str, bytes)


@dataclass(slots=True)
class _Recipe:
    """How exceptions of a class are made."""

    cls: type  # kept so that no other class gets its id
    name: str
    #: The class that makes them; None if none can, or if *cls* can't be found by its name.
    maker: Any
    #: The checks that their arguments have to pass.
    checks: tuple[Callable[[tuple[Any, ...]], bool], ...]

    @classmethod
    def of(cls, kind: type) -> "_Recipe":
        maker = _maker_of(kind) if find_class(name_of(kind)) is kind else None
        checks = () if maker is None else _checks_of(maker)
        return cls(kind, full_name(kind), maker, checks)

    def instance(self, args: tuple[Any, ...]) -> Exception | None:
        """Return an exception with plain *args*; None if it can't be made by the rules."""
        if self.maker is None or not all(check(args) for check in self.checks):
            return None
        try:
            made: Exception = self.maker.__new__(self.cls, *args)
            # OSError may return an instance of a subclass, chosen by the errno.
            BUILTIN.get(id(type(made)), self.maker).__init__(made, *args)
        except Exception:  # a C type with a constructor of its own, or the wrong number of args
            return None
        return made


def _checks_of(maker: type) -> tuple[Callable[[tuple[Any, ...]], bool], ...]:
    return tuple(check for kind, check in _CHECKS.items() if issubclass(maker, kind))


def decode_error_of_python_2(encoding: Any, source: Any, *rest: Any) -> tuple[Any, ...]:
    """Return the arguments of a UnicodeDecodeError whose bytes may have been read as text."""
    return encoding, source.encode("utf-8") if type(source) is str else source, *rest


def _shown_by_type(value: Any) -> str:
    return f"<{name_of(type(value))[1][:MAX_NAME]}>"


class ErrorMaker:
    """Makes exceptions from the data in messages.

    :param spend: called with the cost of each exception, in items.
    :param show: returns the text that replaces an argument that is not plain.
    :param keep_note: returns whether to keep a note.
    :param for_one_message: whether this object remembers how exceptions of a class are made.
    """

    def __init__(
        self,
        spend: Callable[[int], None] = spend_nothing,
        show: Callable[[Any], str] = _shown_by_type,
        keep_note: Callable[[str], bool] = bool,
        for_one_message: bool = False,
    ) -> None:
        self._spend = spend
        self._show = show
        self._keep_note = keep_note
        self._for_one_message = for_one_message
        # By the id of the class: a metaclass may define any hash.
        self._recipes: dict[int, _Recipe] = {}

    def make(self, cls: type, args: Iterable[Any], attributes: Any = None) -> Exception:
        """Return an instance of *cls*, or the RemoteException that stands for it."""
        return self._make(self._parts(cls, args, attributes), self._allowance())

    def stand_for(
        self, name: str, args: Iterable[Any], attributes: Any = None, text: str | None = None
    ) -> Exception:
        """Return a RemoteException for the type *name*; *text* defaults to the text of *args*."""
        parts = _Parts(name[:MAX_NAME], None, args, attributes, text)
        return self._make(parts, self._allowance())

    def copy(self, error: BaseException) -> Exception:
        """Return a copy of *error* as the receiver of a message would get it."""
        return self.make(type(error), *args_and_state(error))

    def set_state(self, error: BaseException, state: Any) -> None:
        """Set the plain attributes in *state* on *error*, which was made by this object.

        :raises pickle.UnpicklingError: *state* has attributes that no pickler writes.
        """
        _check_state(error, state)
        allowance = self._allowance()
        self._plain_args(args_of(error), allowance, 0)  # to count them against the allowance
        self._set_attributes(error, state, allowance, 0)

    def plain_args(self, args: Iterable[Any]) -> tuple[Any, ...]:
        """Return a copy of each plain value in *args*, and a text for each other one."""
        return self._plain_args(args, self._allowance(), 0)[0]

    def shown_args(self, error: BaseException) -> tuple[tuple[Any, ...], bool]:
        """Return the args of *error* like :meth:`plain_args`; and whether all are plain."""
        return self._plain_args(args_of(error), self._allowance(), 0)

    def _allowance(self) -> Allowance:
        return Allowance(self._copy_inner, self._spend)

    def _copy_inner(self, value: Any, depth: int, allowance: Allowance) -> Exception:
        """Copy an exception inside another one; raise NotPlainError for any other value."""
        cls = type(value)
        if not issubclass(cls, BaseException):
            raise NotPlainError
        return self._make(self._parts(cls, *args_and_state(value)), allowance, depth + 1)

    def _parts(self, cls: type, args: Iterable[Any], attributes: Any) -> "_Parts":
        recipe = self._recipes.get(id(cls)) or _Recipe.of(cls)
        if self._for_one_message:
            self._recipes[id(cls)] = recipe
        return _Parts(recipe.name, recipe, args, attributes)

    def _make(self, parts: "_Parts", allowance: Allowance, depth: int = 0) -> Exception:
        parts = parts.without_remote_exception()
        kept, all_plain = self._plain_args(parts.args, allowance, depth)
        self._spend(_COST)
        made = parts.recipe.instance(kept) if parts.recipe is not None and all_plain else None
        if made is None:
            text = text_of_args(kept) if parts.text is None else parts.text
            self._spend(_COST_OF_REMOTE + len(text) // _CHARACTERS_KEPT)
            made = RemoteException(parts.name, kept, cut_octets(text, MAX_TEXT))
        self._set_attributes(made, parts.attributes, allowance, depth)
        return made

    def _plain_args(
        self, args: Iterable[Any], allowance: Allowance, depth: int
    ) -> tuple[tuple[Any, ...], bool]:
        """Return copies of *args*, with texts for those that are not plain; and whether all are."""
        kept, all_plain = list[Any](), True
        for arg in islice(args, MAX_ITEMS + 1):
            try:
                kept.append(allowance.copy_cut(arg, depth))
            except NotPlainError:
                kept.append(self._show(arg))
                all_plain = False
        return tuple(kept), all_plain

    def _set_attributes(
        self, error: BaseException, attributes: Any, allowance: Allowance, depth: int
    ) -> None:
        """Set the plain ones of *attributes*, without running code of the class."""
        if type(attributes) is not dict:
            return
        for name, value in islice(attributes.items(), MAX_ITEMS):
            with suppress(NotPlainError):
                if name == NOTES:
                    self._add_notes(error, value, allowance)
                elif _is_settable(error, name):
                    _set_attribute(error, allowance.copy(name), allowance.copy(value, depth))

    def _add_notes(self, error: BaseException, notes: Any, allowance: Allowance) -> None:
        for note in notes[:MAX_ITEMS] if type(notes) in (list, tuple) else ():
            if type(note) is str and self._keep_note(note):
                BaseException.add_note(error, allowance.copy_cut(note))


@dataclass(slots=True)
class _Parts:
    """The parts to make an exception of."""

    name: str
    recipe: _Recipe | None
    args: Iterable[Any]
    attributes: Any
    text: str | None = None  # None if it is not known

    def without_remote_exception(self) -> "_Parts":
        """Return the parts of the exception that a RemoteException stands for; else itself."""
        if self.recipe is None or self.recipe.cls is not RemoteException:
            return self
        args = tuple(islice(self.args, 4))
        if len(args) != 3 or not all_of_type(args[::2], str) or type(args[1]) is not tuple:
            return self
        return _Parts(args[0][:MAX_NAME], None, args[1], self.attributes, args[2])


# --- attributes ---------------------------------------------------------------------------


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _check_state(error: BaseException, state: Any) -> None:
    """Refuse a *state* that no pickler writes for an exception."""
    if type(state) is not dict or not all_of_type(state, str):
        raise pickle.UnpicklingError("a state is no dict of attributes")
    notes = state.get(NOTES, [])
    if type(notes) is not list or not all_of_type(notes, str):
        raise pickle.UnpicklingError("the notes of an exception are no texts")
    if any(_is_special(name) and name != NOTES for name in state):
        raise pickle.UnpicklingError("a message may not set special attributes")
    for name, value in state.items():  # args were set when the exception was made
        if name != "args" and _builtin_with(error, name) and not all_of_type((value,), *_SCALARS):
            raise pickle.UnpicklingError(
                f"a message may not set {name!r} of an exception to such a value"
            )


def _is_settable(error: BaseException, name: Any) -> bool:
    plain = type(name) is str and not _is_special(name)
    return plain and type(error) is not RemoteException


def _builtin_with(error: BaseException, name: str) -> type | None:
    """Return the builtin class of *error* that defines *name* itself; None if there is none."""
    return next(
        (
            cls
            for cls in mro_of(type(error))
            if id(cls) in BUILTIN and name in (namespace_of(cls) or {})
        ),
        None,
    )


def _set_attribute(error: BaseException, name: str, value: Any) -> None:
    defining = _builtin_with(error, name)
    if defining is None:
        ATTRIBUTES.__get__(error)[name] = value
    elif name in _TEXTS_IN_C.get(defining, ()) and all_of_type((value,), str, NoneType):
        vars(defining)[name].__set__(error, value)
