"""Makes received text printable, for a log line or the text of an error."""

# Characters; enough to recognize a text by.
_MAX_LENGTH = 500


def printable(text: str) -> str:
    """Return *text* in one line without control characters, cut after 500 characters."""
    cut = text if len(text) <= _MAX_LENGTH else text[:_MAX_LENGTH] + "…"
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in cut)
