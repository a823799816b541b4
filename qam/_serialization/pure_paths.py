"""Makes pure paths from texts of bounded length, without interning them for ever."""

import pickle  # for its errors only  # nosec B403
import sys
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any

PATHS = (PurePath, PurePosixPath, PureWindowsPath)

_MAX_PATH = 4_096  # characters of all texts together, and also the number of texts
# This version of Python keeps the texts that pathlib interns for the life of the process.
_KEEPS_INTERNED = sys.version_info[:2] == (3, 12)


def pure_path(cls: Any, *texts: Any) -> PurePath:
    """Stand in for the class *cls* of :mod:`pathlib`."""
    if not all(type(text) is str for text in texts):
        raise pickle.UnpicklingError("a path is made of texts only")
    if len(texts) > _MAX_PATH or sum(map(len, texts)) > _MAX_PATH:
        raise pickle.UnpicklingError("a path is too long for a message")
    made: PurePath = cls(*texts)
    return _parsed(made) if _KEEPS_INTERNED else made


def _parsed(path: Any) -> PurePath:
    """Set the parts of *path*; pathlib would intern them at the first access to one."""
    flavour = path._flavour
    text = flavour.join(*path._raw_paths or [""])
    if flavour.altsep:
        text = text.replace(flavour.altsep, flavour.sep)
    drive, root, rest = flavour.splitroot(text)
    anchor = type(path)(drive + root)  # it has no parts to intern
    path._drv, path._root = anchor.drive, anchor.root
    path._tail_cached = [part for part in rest.split(flavour.sep) if part not in ("", ".")]
    return path  # type: ignore[no-any-return]
