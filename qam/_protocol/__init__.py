"""What travels between a proxy and a server.  No I/O here.

Broker entities, all direct, durable, not exclusive, not auto-delete::

    request exchange  <server_id>_server_exchange
    request queue     <server_id>_server_queue    <server_id>_server_routing_key
    reply exchange    <server_id>_client_exchange
    reply queue       <client_id>_client_queue    <client_id>_client_routing_key
    siblings exchange <server_id>_server_siblings_exchange *
    siblings queue    <server_id>_server_siblings_queue.<instance>, one for each server *

Request body::

    field         type   set by   meaning
    id            int    proxy    unique per call, echoed in the reply
    method_name   str    proxy    "add", or "instance.method"
    routing_key   str    proxy    where the reply goes
    params        tuple  proxy    positional arguments

Reply body::

    id                  int    server  the request's
    result              any    server  the return value; the exception (pickle) or its
                                       args (JSON) if exception is true; a message if
                                       internal_exception > 0
    exception           bool   server  the call failed
    internal_exception  int    server  -1: not internal, else one of the codes below
    exception_type      str    server  module.QualifiedName of what the method raised *
    exception_text      str    server  its text *
    exception_args      tuple  server  its args, where its type can't be built of a pickle *
    traceback           str    server  its traceback *

Properties: content_type, content_encoding, delivery_mode (2; or 1 for requests that
may be lost with the broker, and for their replies); on requests correlation_id
(unique per call), reply_to (the reply routing key) and expiration (milliseconds, if
the call has a timeout); replies echo correlation_id. *

Headers of requests: x-qam-resent (int), where this is not the first copy: the
milliseconds since the first one was sent; x-qam-runs (int), where the method is
idempotent and runs again: how often it has begun, this time included;
x-qam-given-back (bool), where a server that closed had no time to start it. *

Fields and properties with a * are unknown to 0.2.x peers, which ignore them.
"""
