"""Calls that are made again, by stamina, if their methods did not run."""

import stamina

from qam import QAMConnectionException, QAMProxy, QAMServerNotFoundException, QAMTimeoutException

# Of the errors after which the same call may be made again, those that may go by themselves.
MAY_GO_BY_ITSELF = (QAMTimeoutException, QAMConnectionException, QAMServerNotFoundException)


def is_worth_another_try(error: Exception) -> bool:
    """Whether the method did not run, and may run next time."""
    return isinstance(error, MAY_GO_BY_ITSELF) and error.safe_to_retry


@stamina.retry(on=is_worth_another_try, attempts=5, timeout=60)
def take(stock: QAMProxy, item: str, number: int) -> int:
    """Take some of an item, once."""
    left: int = stock.take(item, number)
    return left
