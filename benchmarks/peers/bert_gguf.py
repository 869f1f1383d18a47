"""Converts a folder of BERT's weights to GGUF: `python bert_gguf.py FOLDER FILE F16|Q8_0`. It runs in llama.cpp's environment.

As llama.cpp's own convert_hf_to_gguf.py has it: names of the architecture `bert`, vectors and what is looked up by position in
float32, matrices in the type asked for. The words of the vocabulary carry SentencePiece's mark of a beginning in place of
WordPiece's mark of a continuation.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import quantize

TYPES = {"F16": gguf.GGMLQuantizationType.F16, "Q8_0": gguf.GGMLQuantizationType.Q8_0}
FILE_TYPES = {"F16": gguf.LlamaFileType.MOSTLY_F16, "Q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
DTYPES = {"F32": np.float32, "F16": np.float16}
OUTER = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
INNER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
POSITIONAL = ("position_embd", "token_types")
CONTROL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def main() -> None:
    folder, file, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    writer = gguf.GGUFWriter(file, "bert")
    write_sizes(writer, json.loads((folder / "config.json").read_text()))
    writer.add_file_type(FILE_TYPES[kind])
    write_vocabulary(writer, (folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
    for name, tensor in tensors(folder / "model.safetensors"):
        if (renamed := renamed_of(name)) is not None:
            write_tensor(writer, renamed, tensor, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_sizes(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_token_type_count(config["type_vocab_size"])


def write_vocabulary(writer: gguf.GGUFWriter, words: list[str]) -> None:
    types = [gguf.TokenType.CONTROL if word in CONTROL else gguf.TokenType.NORMAL for word in words]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")  # WordPiece over words in lower case, as BERT's own
    writer.add_token_list([marked(word) for word in words])
    writer.add_token_types(types)
    pad, unknown, cls, sep, mask = map(words.index, CONTROL)
    writer.add_bos_token_id(cls)
    writer.add_eos_token_id(sep)
    writer.add_sep_token_id(sep)
    writer.add_pad_token_id(pad)
    writer.add_unk_token_id(unknown)
    writer.add_mask_token_id(mask)


def marked(word: str) -> str:
    if word.startswith("[") and word.endswith("]"):
        return word
    return word[2:] if word.startswith("##") else f"\u2581{word}"


def renamed_of(name: str) -> str | None:
    """llama.cpp's name of a tensor; None for one that gives no vector."""
    name, _, kind = name.removeprefix("bert.").rpartition(".")
    if name in OUTER:
        return f"{OUTER[name]}.{kind}"
    block, _, inner = name.removeprefix("encoder.layer.").partition(".")
    return f"blk.{block}.{INNER[inner]}.{kind}" if inner in INNER else None


def write_tensor(writer: gguf.GGUFWriter, name: str, tensor: np.ndarray, kind: str) -> None:
    if tensor.ndim == 1 or name.startswith(POSITIONAL):
        writer.add_tensor(name, tensor.astype(np.float32))
    else:
        writer.add_tensor(name, quantize(tensor.astype(np.float32), TYPES[kind]), raw_dtype=TYPES[kind])


def tensors(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Those of a safetensors file: the length of a header in JSON, the header, and the bytes it tells of."""
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for name, about in json.loads(content[8:start]).items():
        if name != "__metadata__" and about["dtype"] in DTYPES:
            first, last = about["data_offsets"]
            yield name, np.frombuffer(content[start + first : start + last], DTYPES[about["dtype"]]).reshape(about["shape"])


if __name__ == "__main__":
    main()
