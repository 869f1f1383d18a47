"""The other door: files in, files out, through the same embedders as the server. Knows no HTTP, no keys and no configuration.

What comes in:

stream       a file's bytes as UTF-8, whatever compressed or encoded them
encoding     which encoding a text is in, and what makes UTF-8 of it
lines        the lines of a text, none longer than fits in memory, and where each ends
dialect      how fields are told apart, and hints where a guess was wrong
table        the records of CSV and TSV
json_array   where the elements of a JSON array lie
json_object  an object as Python's json reads it, but for keys it has twice
json_source  JSON lines and JSON arrays
parquet      the fourth format, in and out
row          one text of the input, or the reason why it is none
source       what all formats share: the rows of a file, from any row on
opening      from a path to the rows of that file
folder       from a path to the rows of a file, or of all files of a folder
content      which content an input has; pipes, to a file that can be read again

What is done with it:

options      what was asked for
job          what is being done: two runs that differ in it never share an output
shard        neighbouring rows that are embedded together, always the same ones
worker       a shard's vectors; finds the rows that have none
outcome      what became of a shard's rows
fault        whose fault an error is: an input's, or the model's for a while
patience     how long a model is asked again
journal      what is done, on disk: never half a shard, whenever the process is killed
pipeline     rows read ahead, shards embedded, results written behind
progress     how fast, how far, how long still
kept         the input's columns that go along
output       from the journal to the files that were asked for
reasons      why rows were rejected, and what would mend it
run          all of it, from the options to the output
"""
