"""This machine: models that are loaded here, and the one road their inputs share. Knows no HTTP and no keys.

embedder          the Embedder: prepare, queue, join
backend           the backend `sentence-transformers`: what commands ask of a row that is not loaded
settings          what a model row may hold
preprocessor      texts into counted, checked windows of token ids
tokenizer         text -> token ids
work              one window that waits; the work of one request
scheduler         whose window is next: fair_queue holds the start-time fair queueing
batcher           which windows run next, together
budget            how large a batch may be
device            the thread that runs them
encoder           token ids -> vectors: openvino_encoder on a CPU, torch_encoder on CUDA
latency_network   a second compiled network of all cores, for a small batch that is alone
flash_attention   batches without padding, where FlashAttention is installed
shape_buckets     the ladder of batch shapes
runtime           which encoders serve a model here
weights           where a model's files are
artifact          a compiled model on disk; compiler makes it, fidelity measures it
"""
