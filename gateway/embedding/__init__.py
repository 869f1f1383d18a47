"""The idea of embedding: the seam every backend fits, the catalog of models, and what is done with any backend's vectors."""
