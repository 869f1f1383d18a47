"""What stands over uvicorn: connections, their limits in time and bytes, and a stop in two steps. It knows no word of OpenAI's.

server            uvicorn's server with a stop of our own
listening         its sockets; metrics_port those of /metrics alone
protocol          one client's connection: what it may cost, in time and in bytes
connection_table  all of them, and who closes for a newcomer; open_files what they count against
lingering_close   an answer that is given before the body is read; expectation whether a body is awaited
upgrade           clients that offer another protocol
write_buffer      writes that leave together
client_address    who asks, for the log; headers as ASGI has them
log_sampler       lines that strangers cause; loop_lag how late the event loop is
"""
