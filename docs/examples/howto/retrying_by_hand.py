"""The same as in retrying.py, without a package."""

import time

from qam import QAMConnectionException, QAMProxy, QAMServerNotFoundException, QAMTimeoutException

MAY_GO_BY_ITSELF = (QAMTimeoutException, QAMConnectionException, QAMServerNotFoundException)
PAUSES = (0.1, 0.2, 0.4, 0.8)  # seconds


def take(stock: QAMProxy, item: str, number: int) -> int:
    """Take some of an item, once."""
    for pause in (*PAUSES, None):
        try:
            left: int = stock.take(item, number)
            return left
        except MAY_GO_BY_ITSELF as error:
            if pause is None or not error.safe_to_retry:
                raise
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")
