"""Encodes values as bodies, and decodes bodies within limits of what they may build and cost."""
