"""What each key used: counted in memory, written behind."""
