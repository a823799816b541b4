"""The soak: servers and clients under load while broker, connections and servers fail at random.

    python -m tests.chaos --minutes 10 --seed 7

Whatever fails, each call must end, must end honestly, and must not run twice. That is not taken
from the library's own word: what ran is in a journal that the methods write, outside of every
process that can be killed; what came back is in the outcome files of the clients; and the two are
compared when everything is over.
"""
