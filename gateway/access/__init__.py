"""Access control: who may come in, and how much at once. Knows keys and callers; knows no HTTP, no model and no text."""
