"""The version of this library, as it is installed."""


def own_version() -> str:
    """Return the version, such as ``1.0.0``; looked up at each call."""
    from importlib.metadata import version  # takes longer than the rest of the import

    return version("qam")
