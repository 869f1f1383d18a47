"""Bulk embedding: a file of texts to a file of vectors, with the same embedders as the server. No HTTP, keys or configuration.

Input:

stream       a file's text as UTF-8, decompressed and transcoded
encoding     detection of a text's encoding, and transcoding to UTF-8
lines        an iterator over lines with bounded memory
csv_dialect      the delimiter and quote of CSV and TSV, and hints if they are wrong
table        the records of CSV and TSV
json_array   a tokenizer that finds the elements of a JSON array
json_object  a JSON object as Python's json reads it, except for duplicate keys
json_source  JSON lines and JSON arrays
parquet      Parquet, input and output
row          one row of the input: its text, or the reason why it has none
source       the protocol of all formats: the rows of a file, from any row on
open_input      opens a file as the rows of its format
folder       opens a path: one file, or all files of a folder
content      a digest of the input; spools pipes to a file that can be read again

Processing:

options      the options of a run
job          the identity of a run: two runs with different jobs never share an output
shard        the unit of work: consecutive rows that are embedded together, always the same ones
worker       computes a shard's vectors, and finds the rows that fail
outcome      the result of each row of a shard
fault        classifies errors: an input's, or the model's (transient or not)
retry     retries with backoff
journal      an append-only journal of finished shards: never half a shard, even after a kill
pipeline     reads ahead, embeds shards, writes behind
progress     rate, share and time left
carried_columns         the input's columns that are copied to the output
output       the output files, made of the journal
reasons      a summary of why rows were rejected, with hints
run          a whole run, from the options to the output
"""
