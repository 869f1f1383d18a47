"""Files that clients upload and batches write: rows in the key store's database, contents in a storage, each streamed.

store         FileStore: create, get, list, delete, read; whose file is whose
writer        FileWriter: one new file, committed whole or not at all
stored_file   a file as the table has it; its id
table         the rows, in SQLite or PostgreSQL; records runs it in a thread
storage       what a storage is; folder_storage and s3_storage are the two
lines         chunks to lines
sweeper       deletes what has expired

A file belongs to the key that made it, by the key's public id, which a rotation keeps. No other key can read it or learn of it. The
room knows nothing of HTTP and nothing of what a file contains.
"""
