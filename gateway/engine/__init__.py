"""This machine: models that are loaded here, and the one road their inputs share. Knows no HTTP and no keys.

local       the Embedder: plan, queue, join
settings    what a model row may hold
plan        texts into counted, checked windows of token ids
tokenizer   text -> token ids
job         one window that waits; the work of one request
batcher     which jobs run next, together
budget      how large a batch may be
device      the thread that runs them
encoder     token ids -> vectors: openvino_encoder on a CPU, torch_encoder on CUDA
unpadded    batches without padding, where FlashAttention is installed
shapes      the ladder of batch shapes
runtime     which encoders serve a model here
weights     where a model's files are
artifact    a compiled model on disk; compiler makes it, fidelity measures it
"""
