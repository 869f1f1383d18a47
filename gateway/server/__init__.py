"""An HTTP server on uvicorn: connection limits in time and bytes, and a graceful shutdown. It knows nothing of OpenAI's API.

server            uvicorn's server with a graceful shutdown in two steps
listening         its listening sockets; metrics_port: those of /metrics alone
protocol          one client's connection, and its limits in time and bytes
connection_table  all connections, and LRU eviction for a new one; open_files: the limit they count against
lingering_close   a response that is sent before the body is read; expectation: `Expect: 100-continue`
upgrade           requests that offer another protocol
write_buffer      write coalescing
client_address    the client's address, for the log; headers: as ASGI has them
log_sampler       bounds the log lines that clients without a key cause; loop_lag: how late the event loop is
"""
