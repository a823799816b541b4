"""The messages between a proxy and a server, and the entities that carry them.  No I/O here.

Entities at the broker; exchanges are direct, and all are durable, not exclusive and not
auto-delete::

    request exchange  <server_id>_server_exchange
    request queue     <server_id>_server_queue    <server_id>_server_routing_key
    reply exchange    <server_id>_client_exchange
    reply queue       <client_id>_client_queue    <client_id>_client_routing_key
    siblings exchange <server_id>_server_siblings_exchange *
    siblings queue    <server_id>_server_siblings_queue.<instance>, one per server *
    presence queue    <server_id>_server_presence_queue *

Request body::

    field         type   set by   meaning
    id            int    proxy    unique per call, echoed in the reply
    method_name   str    proxy    "add", or "instance.method"
    routing_key   str    proxy    the routing key of the reply
    params        tuple  proxy    positional arguments

Reply body::

    id                  int    server  the id of the request
    result              any    server  the return value; the exception (pickle) or its
                                       args (JSON) if exception is true; the text of the
                                       error if internal_exception > 0
    exception           bool   server  the call failed
    internal_exception  int    server  -1: not internal, else a code of replies.py
    exception_type      str    server  module.QualifiedName of the exception that the
                                       method raised *
    exception_text      str    server  its text *
    exception_args      tuple  server  its args, if a pickle can't build its type *
    traceback           str    server  its traceback *

Properties: content_type, content_encoding, and delivery_mode (2; or 1 for requests that
may be lost with the broker, and for their replies).  Requests also have correlation_id
(unique per call), reply_to (the routing key of the reply) and expiration (milliseconds, if
the call has a timeout); and user_id, if the client says who it is, which RabbitMQ verifies.
Replies repeat the correlation_id. *

Headers of requests: x-qam-resent (int), if this is not the first copy: the milliseconds
since the first copy was sent.  x-qam-runs (int), if the method is idempotent and runs
again: how often it has begun, this time included.  x-qam-given-back (bool), if a server
that closed had no time to start the method.  x-qam-oneway (bool), if nobody waits for the
reply.  x-qam-user (str), if a server has published a request anew that had a user_id: that
user.  All other headers whose names do not begin with x- are the metadata of the call. *

Fields and properties with a * are unknown to 0.2.x peers, which ignore them.
"""
