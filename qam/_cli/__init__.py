"""The commands of ``python -m qam``."""
