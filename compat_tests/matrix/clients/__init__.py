"""One program a client. Each reads what to ask as a line of JSON, asks it of a server, and writes what came as a line of JSON."""
