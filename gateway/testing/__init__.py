"""Fakes, real servers and small models, for tests and benchmarks. No code that serves imports this.

contract          checks the Embedder contract in one call, for the tests of other packages
fakes             a fake embedder, backend, encoder and clock
programs          finds installed programs and free ports
program           a gateway process around a fake embedder
gateway_thread    a gateway on a real socket, in a thread
socket_client     clients on real sockets that may disconnect at any time
upstream_server   stand-ins for upstream servers of other protocols; the test chooses the replies
rerank_server     stand-ins for rerankers on other servers
swallowing_proxy  a TCP proxy that stops passing data on
postgres          a temporary PostgreSQL server
redis_server      a temporary Redis server
ray_cluster       a Ray cluster of several nodes, and a load that checks every vector
model_folders     small model folders, as sentence-transformers saves them
small_model       a BERT of two layers with random weights
architectures     small models of many architectures
rerankers         small rerankers of many architectures, and one of MiniLM's size
sparse_encoders   small sparse encoders (SPLADE) of several architectures
multilingual      sentences in many languages, and models made from them
"""
