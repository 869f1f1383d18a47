"""Embedding: the interface that every backend implements, the catalog of models, and the steps common to all backends' rows.

A row is a vector, a reranker's score (a vector of one dimension), or a sparse encoder's weights.
"""
