"""A connection to a broker, and the thread that owns it."""
