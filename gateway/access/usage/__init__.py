"""Usage of each key, by write-behind: counted in memory, written to the store every few seconds."""
