"""The threads of a QAMServer, and what they know of the calls that they have."""
