"""The page on running a server, and its files, tried as an operator would."""
