"""The other door: files in, files out, through the same embedders as the server. Knows no HTTP, no keys and no configuration.

row        one text of the input, or the reason why it is none
lines      the lines of a file, none longer than fits in memory, and where each ends
source     the rows of a file: text lines, JSON lines, CSV; parquet is the fourth format, in and out
shard      neighbouring rows that are embedded together, always the same ones
job        what is being done: two runs that differ in it never share an output
worker     a shard's vectors; tries again what may pass, finds the rows that have none
fault      whose fault an error is: an input's, or the model's for a while
journal    what is done, on disk: never half a shard, whenever the process is killed
output     from the journal to the files that were asked for
progress   how fast, how far, how long still
pipeline   rows read ahead, shards embedded, results written behind
run        all of it, from the options to the output
"""
