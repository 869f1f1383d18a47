"""Fakes, and real servers and models, for tests and benchmarks. Nothing that serves imports this.

contract          what every embedder promises, as one call, for the tests of other packages
fakes             an embedder, a backend, an encoder and a clock
programs          what a helper starts, and the ports it listens on
program           a gateway around a fake embedder, as a process
gateway_thread    a gateway on a real socket, in a thread
socket_client     clients on real sockets that may leave whenever they like
upstream_server   servers of other protocols, answering as a test says
swallowing_proxy  a TCP proxy that falls silent
postgres          a PostgreSQL server of one's own
redis_server      a Redis of one's own
ray_cluster       a Ray cluster of several nodes, and a load that checks every vector
model_folders     small model folders of many kinds
small_model       a BERT of two layers, made on the spot
architectures     small models of many architectures
multilingual      sentences in many languages, and models made from them
"""
