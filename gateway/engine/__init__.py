"""The local inference engine: loads models on this machine, and batches and embeds their inputs. Knows no HTTP and no keys.

embedder          the Embedder: prepare, queue, join
backend           the backend `sentence-transformers`: also answers commands about a row that is not loaded
settings          the settings of a model row
preprocessor      texts -> counted, checked windows of token ids; pair_preprocessor, of a reranker: a query and documents
preprocessors     chooses between the two
pairs             a query and a document -> token ids, as CrossEncoder joins them
tokenizer         text -> token ids
text_tokenizer    the tokens themselves, for clients that cut texts; token_ids: inputs that are token ids
work              a queued window (a job), and all windows of one request
scheduler         which caller is next, by start-time fair queueing (fair_queue)
batcher           which windows form the next batch
budget            how large a batch may be
device            the thread that runs batches
encoder           token ids -> vectors: openvino_encoder on a CPU; torch_encoder, torch_reranker and torch_sparse_encoder, which
                  share torch_network, on CUDA and as the reference in float32
static_encoder    of static models, by numpy alone: static_model reads their files (tensors), static_reference is what they are
                  measured against
latency_network   a second compiled network that uses all cores, for a small batch that runs alone
flash_attention   batches without padding, if FlashAttention is installed
shape_buckets     the bounded set of batch shapes
stream_plan       how many batches run at once on a CPU, and by how many threads
runtime           chooses and loads a model's encoders
weights           finds a model's files
kind              embedder, reranker or sparse encoder, by the files of its folder (model_folder); unsupported refuses all others
adapter           LoRA adapters, which adapter_merge adds to their base
checkpoint        loads an embedder strictly; pair_checkpoint a reranker
calibration       the range of a model's int8 and uint8 vectors
artifact          a compiled model on disk; compiler makes it, fidelity measures it
"""
