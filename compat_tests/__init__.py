"""The installed gateway as a process, spoken to by real clients only. Nothing here imports `gateway`."""
