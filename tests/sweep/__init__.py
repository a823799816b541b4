"""The sweep: each exception class that there is, as a hostile peer would send it.

``python -m tests.sweep`` for the standard library and the packages in
:mod:`tests.sweep.packages`, one after the other, each in a process with limits;
``python -m tests.sweep python flask`` for some of them.
"""
