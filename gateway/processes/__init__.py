"""One gateway in several processes: a supervisor, fronts that speak HTTP, and one engine (`server.workers` above 1).

supervisor      forks the others, starts them anew, handles signals
child_process   a child as the supervisor sees it: when it is started again; shutdown: in which order they end
listeners       the sockets that the supervisor keeps open; signals: signals as bytes on a socket; sums: of all metrics
child           what a process gets when it is forked; its life until its exit code
control         messages between the supervisor and a child
control_socket  their frames on a socket, with file descriptors beside them
control_channel the child's end, on its event loop
totals          counts over all fronts, in shared memory; shared_admission, shared_connections: the bounds by them
acceptor        gives each front its part of the new connections; workers: how many fronts there are

front             the process that speaks HTTP; front_generation: its parts of one configuration; front_handler: their road
engine_client     its calls to the engine process; engine_embedder, front_tokenizing: models of that process
remote_access     its keys, remote_lease: its limits; both are the engine process's
known_inputs      what a front remembers of inputs that the cache has
relay             what the engine process answers; front_probes: what is answered while that is gone

engine_process    the process with models, keys, limits and cache: all of a gateway but its HTTP server
fronts            its fronts: reloads over all of them, what they hear of models (model_states) and keys (key_watch)
front_connection  one front: answers its messages; front_calls: those under way; held_generations: which it may still use
front_leases      its rate limit leases; embed_calls, direct_call, prepared_calls: its calls for vectors; relayed_request: HTTP

The supervisor runs no event loop and starts no thread, so it may fork at any time. It loads no model and answers no request.
"""
