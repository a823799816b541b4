"""How values become bytes, and which bytes may become values."""
