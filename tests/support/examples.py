"""How many examples hypothesis draws for a test, and whether by chance.

As a rule they are the same ones each time, so that a change is judged by what it changes.
`tox run -e explore` draws others; one that fails there becomes an explicit `@example`.
"""

from hypothesis import settings

settings.register_profile("gate", max_examples=100, derandomize=True, database=None, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None, print_blob=True)


def examples(number: int, **options: object) -> settings:
    """Return the settings for a test that draws *number* of them, and as many times more as the
    profile draws more than 100."""
    return settings(max_examples=number * settings.default.max_examples // 100, **options)
