"""Jobs of many requests (/v1/batches), in the key store's database: worked on by whichever gateway is free, and never twice.

service      what clients ask of batches, and the runner; one in a process
job          a batch as its row has it
store        the rows: leases, and what only a lease's holder may write
records      the rows as the event loop uses them
runner       chooses batches and works on them
run          one batch, from its claim to its end
conversion   turns an input of another form to lines of requests, by the process of input_lines
input_lines  the readers of `gateway embed`, for requests
validation   the rules of a whole input file
slice        consecutive requests that are answered together: the unit of work
worker       answers a slice, and finds the requests that fail
endpoint     the interface to the road of ordinary requests
output       the files of the replies
webhook      reports ended batches

The engine is that of `gateway embed` (`gateway/bulk/`). The room knows no HTTP.
"""
