"""The load generator of `gateway bench`, and its measurement. Knows OpenAI's API, and nothing of the gateway's internals.

texts     the texts to send, none of them twice
peer      one request to the server
reply     checks a reply
measured_window    the measurement window: which replies count
tally     the counts
clients   the closed loop
report    the result, as JSON and as a table
"""
