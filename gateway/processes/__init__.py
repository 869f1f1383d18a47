"""One gateway in several processes: a supervisor, fronts that speak HTTP, and one engine (`server.workers` above 1).

supervisor      forks the others, starts them anew, handles signals
child_process   a child as the supervisor sees it: when it is started again; shutdown: in which order they end
listeners       the sockets that the supervisor keeps open; signals: signals as bytes on a socket; sums: of all metrics
child           what a process gets when it is forked; its life until its exit code
control         messages between the supervisor and a child
control_socket  their frames on a socket, with file descriptors beside them
control_channel the child's end, on its event loop
totals          counts over all fronts, in shared memory

The supervisor runs no event loop and starts no thread, so it may fork at any time. It loads no model and answers no request.
"""
