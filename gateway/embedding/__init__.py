"""Embedding: the interface that every backend implements, the catalog of models, and the steps common to all backends' vectors."""
