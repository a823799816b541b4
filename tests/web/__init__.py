"""A proxy at module level, in servers that fork their workers."""
