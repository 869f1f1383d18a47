"""The most used embedding models: what a row needs that their files may not say. docs/models.md's list of rows is written from it.

Sizes and prompts are those of the models' cards. Dimensions, limits and prompts were compared with the metadata of MTEB (revision
a905523d of 2026-08-22), which says 512 tokens of the two paraphrase-multilingual models, where their own files say 128, and 512
dimensions of bge-small-en-v1.5, which has 384; BGE's prompt with FlagEmbedding's list of models. static-retrieval's shorter vectors
are those of its training script.
"""

from msgspec import Struct

E5 = {"query": "query: ", "document": "passage: "}
SEARCH = {"query": "search_query: ", "document": "search_document: "}
REPRESENT = {"query": "Represent this sentence for searching relevant passages: "}


class KnownModel(Struct, frozen=True):
    """`prompts` are those that its files leave out; `has_prompts` says that its files have some. `matryoshka` are dimensions."""

    hub_id: str
    dimensions: int
    max_tokens: int
    matryoshka: tuple[int, ...] = ()
    prompts: dict[str, str] = {}
    has_prompts: bool = False


KNOWN = {
    model.hub_id: model
    for model in (
        KnownModel("sentence-transformers/all-MiniLM-L6-v2", 384, 256),
        KnownModel("sentence-transformers/all-mpnet-base-v2", 768, 384),
        KnownModel("sentence-transformers/multi-qa-mpnet-base-dot-v1", 768, 512),
        KnownModel("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", 384, 128),
        KnownModel("sentence-transformers/paraphrase-multilingual-mpnet-base-v2", 768, 128),
        KnownModel("BAAI/bge-small-en-v1.5", 384, 512, prompts=REPRESENT),
        KnownModel("BAAI/bge-base-en-v1.5", 768, 512, prompts=REPRESENT),
        KnownModel("BAAI/bge-large-en-v1.5", 1024, 512, prompts=REPRESENT),
        KnownModel("BAAI/bge-m3", 1024, 8192),
        KnownModel("intfloat/e5-base-v2", 768, 512, prompts=E5),
        KnownModel("intfloat/multilingual-e5-small", 384, 512, prompts=E5),
        KnownModel("intfloat/multilingual-e5-base", 768, 512, prompts=E5),
        KnownModel("intfloat/multilingual-e5-large", 1024, 512, prompts=E5),
        KnownModel("Qwen/Qwen3-Embedding-0.6B", 1024, 32768, (1024, 768, 512, 256, 128, 64, 32), has_prompts=True),
        KnownModel("google/embeddinggemma-300m", 768, 2048, (768, 512, 256, 128), has_prompts=True),
        KnownModel("Alibaba-NLP/gte-modernbert-base", 768, 8192),
        KnownModel("nomic-ai/modernbert-embed-base", 768, 8192, (768, 256), prompts=SEARCH),
        KnownModel("mixedbread-ai/mxbai-embed-large-v1", 1024, 512, (1024, 512), prompts=REPRESENT),
        KnownModel("Snowflake/snowflake-arctic-embed-l-v2.0", 1024, 8192, (1024, 256), has_prompts=True),
        KnownModel("ibm-granite/granite-embedding-english-r2", 768, 8192),
        KnownModel("minishlab/potion-retrieval-32M", 512, 1_000_000),
        KnownModel("sentence-transformers/static-retrieval-mrl-en-v1", 1024, 1_000_000, (1024, 512, 256, 128, 64, 32)),
    )
}
