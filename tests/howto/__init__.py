"""The files of the how-tos: those that need packages are in a row of tox of their own, `howto`."""
