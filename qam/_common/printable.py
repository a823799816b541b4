"""Text from elsewhere, made fit for a line of a log or of an error."""

# Longer texts say nothing more.
_MAX_LENGTH = 500


def printable(text: str) -> str:
    """Return *text* in one line without control characters, cut after 500 characters."""
    cut = text if len(text) <= _MAX_LENGTH else text[:_MAX_LENGTH] + "…"
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in cut)
