"""The version of this library, as it is installed."""


def own_version() -> str:
    """Return the version, such as ``1.0.0``; "unknown" for a copy that is not installed."""
    from importlib.metadata import (  # takes longer than the rest of the import
        PackageNotFoundError,
        version,
    )

    try:
        return version("qam")
    except PackageNotFoundError:
        return "unknown"
