"""One connection to one broker, and the thread that owns it."""
