"""Short queries beside texts of 8,192 tokens: what the queries take, to a model with random weights that reads so many."""

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from benchmarks import queries
from benchmarks.machine import machine, place, programs, versions
from benchmarks.models import resident, row
from benchmarks.program import GATEWAY, OTHER_KEY
from benchmarks.rounds import kept, now
from benchmarks.server import Server
from gateway.testing.multilingual import SENTENCES, tokenizer

TOKENS = 8192
RATE = 5  # queries a second
SPECIAL = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
QUERIES = [text for texts in SENTENCES.values() for text in texts[:1]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_texts", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=30, help="how long queries are sent, alone and again beside the others (default 30)"
    )
    parser.add_argument("--clients", type=int, default=3, help="of long texts, one text a request (default 3)")
    parser.add_argument("--width", type=int, default=384, help="of the network's layers (default 384, as multilingual-e5-small)")
    parser.add_argument("--layers", type=int, default=12, help="of the network (default 12)")
    parser.add_argument("--folder", type=Path, help="where the model, and what was compiled of it, stay for the next run")
    options = parser.parse_args()
    about: dict[str, Any] = {"at": now(), "machine": machine(), "versions": versions()}
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name:
        folder = options.folder or Path(name)
        model = folder / "whole" if (folder / "whole").is_dir() else made(folder, width=options.width, layers=options.layers)
        program = GATEWAY.configured(GATEWAY__MODELS=json.dumps([row(model, "auto")]))
        with Server(program, folder / "gateway") as server:
            queries.embed_all(server, [[text] for text in QUERIES], clients=2)
            figures = {
                "alone": told(queries.latencies(server, QUERIES, rate=RATE, seconds=options.seconds)),
                "memory": resident(server.process.pid),
            }
            with LongTexts(server, options.clients) as long_texts:
                taken = queries.latencies(server, QUERIES, rate=RATE, seconds=options.seconds)
            figures |= {
                "beside": {**told(taken), "long_texts": long_texts.num_embedded},
                "memory_after": resident(server.process.pid),
            }
    print(f"\n{place(about)}\n{programs(about)}\n")
    for name, values in figures.items():
        print(f"{name:12} " + ", ".join(f"{field} {value:.0f}" for field, value in values.items()))
    print(kept(f"long-{about['at']}", {**about, "figures": figures}))


class LongTexts:
    """A context: clients with another key that each send one text of 8,192 tokens after another. The first ones run inside."""

    def __init__(self, server: Server, num_clients: int) -> None:
        self.client = queries.Client(server)
        self.num_embedded = 0
        self.is_over = threading.Event()
        self.threads = [threading.Thread(target=self.send, args=(number,)) for number in range(num_clients)]
        self.errors: list[Exception] = []

    def send(self, number: int) -> None:
        text = text_of_a_window(number)
        try:
            while not self.is_over.is_set():
                self.client.embed(text, key=OTHER_KEY, long_input="end")
                self.num_embedded += 1
        except Exception as error:  # noqa: BLE001 - raised by the thread that measures
            self.errors.append(error)

    def __enter__(self) -> "LongTexts":
        for thread in self.threads:
            thread.start()
        time.sleep(2)
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]


def text_of_a_window(number: int) -> str:
    """A quarter more than a window, of which only the first is read."""
    words = tokenizer()
    words.no_truncation()
    words.no_padding()
    piece = " ".join(QUERIES[number:] + QUERIES[:number])
    return " ".join([piece] * (1 + 5 * TOKENS // 4 // len(words.encode(piece).ids)))


def told(taken: list[float]) -> dict[str, float]:
    return {f"p{share}_ms": 1000 * queries.percentile(taken, share / 100) for share in (50, 95, 99)} | {"queries": len(taken)}


def made(folder: Path, *, width: int, layers: int) -> Path:
    """Saves an XLM-R, as bge-m3 and multilingual-e5 are, that reads 8,192 tokens; returns its folder."""
    names = {f"{name}_token": text for name, text in SPECIAL.items()}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer(), model_max_length=TOKENS, **names)
    torch.manual_seed(3)
    config = XLMRobertaConfig(
        vocab_size=len(fast), hidden_size=width, num_hidden_layers=layers, num_attention_heads=max(1, width // 64),
        intermediate_size=4 * width, max_position_embeddings=TOKENS + 2, pad_token_id=1,
    )  # fmt: skip
    XLMRobertaModel(config).save_pretrained(folder / "parts")
    fast.save_pretrained(folder / "parts")
    modules = [Transformer(str(folder / "parts"), max_seq_length=TOKENS), Pooling(width, pooling_mode="cls"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "whole"), create_model_card=False)
    return folder / "whole"


if __name__ == "__main__":
    sys.exit(main())
