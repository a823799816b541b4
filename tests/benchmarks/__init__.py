"""What calls cost: qam beside stock py-amqp and other libraries, in interleaved rounds.

    python -m tests.benchmarks --contestants raw,qam --rounds 5

Each contestant has a server process and a client process, new in each round. The driver tells the
client what to do, line by line in JSON; what a client does is in `actions`, how one is made for
each library is in `contestants`, and what the driver makes of it is in `measures`.
"""
