"""Stand-ins for the names of numpy that a pickle may use, if the process has imported numpy.

numpy does not check the state of a dtype or the size of an array: a dtype that hides that it
holds objects turns any eight bytes into a pointer.  So a dtype is made anew from its state by
the constructor, which checks it, and an array must get exactly the bytes that it needs.
"""

import math
import pickle  # for its errors only  # nosec B403
import re
import sys
from collections.abc import Callable
from typing import Any

from qam._common.static_inspection import Name
from qam._serialization.trust import imported

# A dtype without fields: the fields of a structured dtype come in its state.
_SPEC = re.compile(r"[<>|=]?[?bBhHiIlLqQefdgFDGuUScOVmM][0-9]{0,10}")
_UNIT = re.compile(r"(generic|[YMWDhms]|ms|us|ns|ps|fs|as)")
_MAX_EMPTY = 4_096  # rows of an array without items; tolist() would make a list of each


def find(name: Name) -> Any:
    """Return the stand-in for *name* of numpy; None if there is none, or numpy is not imported."""
    return _NAMES.get(name) if _is_imported() else None


def _is_imported() -> bool:
    """Return True if numpy is imported; a lazy module does not count, and is not triggered."""
    return imported("numpy", "ndarray") is not None


def _numpy() -> Any:
    return sys.modules["numpy"]


def _multiarray() -> Any:
    return sys.modules.get("numpy._core.multiarray") or sys.modules["numpy.core.multiarray"]


def _octets(data: Any) -> Any:
    """Return *data*; as bytes, if it is a byte string of Python 2 that was read as text."""
    return data.encode("utf-8") if isinstance(data, str) else data


class _Array:
    """Stands in for ``numpy.ndarray``, and is not callable: a new array shows old memory."""


def _refuse(what: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"{what} of numpy is not as numpy writes it")


def empty_array(subtype: Any, shape: Any, kind: Any) -> Any:
    """Stand in for ``_reconstruct``; the state that follows sets the shape."""
    if subtype is not _Array or shape != (0,):
        raise _refuse("an array")
    return _numpy().ndarray((0,), "b")


def _dtype(spec: Any, align: Any = False, copy: Any = True) -> Any:
    if not isinstance(spec, str) or not _SPEC.fullmatch(spec):
        raise _refuse("a dtype")
    return _numpy().dtype(spec, False, True)


def _scalar(dtype: Any, data: Any) -> Any:
    octets = _octets(data)
    if not is_dtype(dtype) or dtype.hasobject or not isinstance(octets, bytes):
        raise _refuse("a scalar")
    if len(octets) != dtype.itemsize:
        raise _refuse("the size of a scalar")
    return _multiarray().scalar(dtype, octets)


def _from_buffer(octets: Any, dtype: Any, shape: Any, order: Any) -> Any:
    if not isinstance(octets, (bytes, bytearray)) or not is_dtype(dtype) or order not in ("C", "F"):
        raise _refuse("an array")
    _check_size(octets, dtype, shape)
    return _numpy().frombuffer(octets, dtype).reshape(shape, order=order)


_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("multiarray", "_reconstruct"): empty_array,
    ("multiarray", "scalar"): _scalar,
    ("numeric", "_frombuffer"): _from_buffer,
}
_NAMES: dict[Name, Any] = {("numpy", "ndarray"): _Array, ("numpy", "dtype"): _dtype}
_NAMES |= {
    (f"numpy.{core}.{module}", name): stand_in
    for core in ("core", "_core")  # numpy 1 and 2
    for (module, name), stand_in in _FUNCTIONS.items()
}


# --- states ---------------------------------------------------------------------------


def is_dtype(value: Any) -> bool:
    """Return True if *value* is a dtype of numpy."""
    return _is_imported() and issubclass(type(value), _numpy().dtype)


def is_array(value: Any) -> bool:
    """Return True if *value* is an array of numpy."""
    return _is_imported() and issubclass(type(value), _numpy().ndarray)


def dtype_with_state(plain: Any, state: Any) -> Any:
    """Return a new dtype made of *state*; *plain* is the dtype before it gets its state."""
    try:
        _, order, subarray, names, fields, itemsize, _, flags, *more = state
        if names is not None:
            made = _structured(names, fields, itemsize, bool(flags & 0x80))
        elif subarray is not None:
            base, shape = subarray
            made = _numpy().dtype((_checked(base), _checked_shape(shape)))
        elif plain.kind in "mM":
            made = _numpy().dtype(f"{plain.kind}8{_unit(more)}")
        else:
            made = plain
        ordered = made.newbyteorder(order) if order in ("<", ">") else made
        return made if made == ordered else ordered  # unchanged, if that is its byte order
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise _refuse("a dtype") from error


def _structured(names: Any, fields: Any, itemsize: Any, align: bool) -> Any:
    described = [fields[name] for name in names]
    if any(len(field) != 2 for field in described):
        raise ValueError("titles are not read")
    return _numpy().dtype(
        {
            "names": list(names),
            "formats": [_checked(dtype) for dtype, _ in described],
            "offsets": [int(offset) for _, offset in described],
            "itemsize": itemsize,
        },
        align=align,
    )


def _checked(dtype: Any) -> Any:
    if not is_dtype(dtype) or not dtype.itemsize:
        raise TypeError("no dtype, or one of items without bytes")
    return dtype


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(type(each) is int and each >= 0 for each in shape):
        raise TypeError("no shape")
    return shape


def _unit(metadata: Any) -> str:
    [(_, (unit, count, *rest))] = metadata
    name = unit.decode() if isinstance(unit, bytes) else unit
    if not _UNIT.fullmatch(name) or type(count) is not int or rest != [1, 1]:
        raise ValueError("no unit")
    return "" if name == "generic" else f"[{count}{name}]"


def array_state(array: Any, state: Any) -> Any:
    """Return the checked state of an array; refuse data of another size than its shape needs."""
    if array.shape != (0,) or not array.flags.owndata:  # it has data, which others may share
        raise _refuse("an array")
    if not isinstance(state, tuple) or len(state) != 5 or not is_dtype(state[2]):
        raise _refuse("an array")
    version, shape, dtype, is_fortran, data = state
    octets = _octets(data)
    _check_size(octets, dtype, shape)
    return version, shape, dtype, bool(is_fortran), octets


def _check_size(data: Any, dtype: Any, shape: Any) -> None:
    try:
        size = math.prod(_checked_shape(shape))
        rows = math.prod(each or 1 for each in shape)
    except TypeError as error:
        raise _refuse("the shape of an array") from error
    if dtype.hasobject:
        fits = isinstance(data, list) and len(data) == size
    else:
        fits = isinstance(data, (bytes, bytearray)) and len(data) == size * dtype.itemsize
    if not fits or (size and not dtype.itemsize) or rows > max(size, _MAX_EMPTY):
        raise _refuse("the size of an array")
