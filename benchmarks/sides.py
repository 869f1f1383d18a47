"""Each thing that is run for a while, told once: the two sides of the ratios of measures.py. A side gives its figures by name."""

import itertools
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmarks import load, past, queries, rerank
from benchmarks.corpus import INPUTS, Corpus
from benchmarks.growth import grown
from benchmarks.mixture import mixture
from benchmarks.program import KEY, MANY_KEYS, MANY_MODELS, OTHER_KEY
from benchmarks.recall import recalls
from benchmarks.server import Server
from benchmarks.worker import Worker

CLIENTS, CROWD, BULK_CLIENTS, CACHED_CLIENTS = 4, 32, 2, 16
FAIR_INPUTS, FAIR_CLIENTS, FAIR_SECONDS = 2048, 64, 30.0
PAST_SECONDS = 30.0
LEVELS = (1, 2, 4, 8, 16, 32, 64)  # clients
BULK_INPUTS = 512
QUERIES_A_SECOND = 5
SETTLE_SECONDS = 1.0  # the batch of a client that was cut off runs to its end
PADDING_REQUESTS = 8  # 512 texts
SCRAPES = 100

Figures = dict[str, float]


@dataclass
class Sides:
    """`seconds` is how long a side runs. Workers, and servers with other settings, are there if some measure needs them."""

    corpus: Corpus
    folder: Path
    seconds: float
    server: Server
    workers: dict[str, Worker] = field(default_factory=dict)
    variants: dict[str, Server] = field(default_factory=dict)
    growth_minutes: float = 0
    past_tokens: int = 0

    def run(self, name: str) -> Figures:
        """`name` is a method here, or a method and its number: level:16."""
        side, _, number = name.partition(":")
        figures: Figures = getattr(self, side)(*([int(number)] if number else []))
        time.sleep(SETTLE_SECONDS)
        return figures

    @cached_property
    def bulk_bodies(self) -> Path:
        return load.bodies_file(self.folder / "bulk.jsonl", self.corpus.requests)

    @cached_property
    def short_bodies(self) -> Path:
        return load.bodies_file(self.folder / "short.jsonl", self.corpus.short)

    @cached_property
    def large_bodies(self) -> Path:
        texts = list(itertools.chain.from_iterable(self.corpus.requests))
        large = [texts[start : start + BULK_INPUTS] for start in range(0, len(texts), BULK_INPUTS)]
        return load.bodies_file(self.folder / "large.jsonl", large)

    @cached_property
    def largest_bodies(self) -> Path:
        texts = list(itertools.chain.from_iterable(self.corpus.requests))
        whole = [texts[start : start + FAIR_INPUTS] for start in range(0, len(texts) - FAIR_INPUTS + 1, FAIR_INPUTS)]
        return load.bodies_file(self.folder / "largest.jsonl", whole)

    @cached_property
    def sentence_bodies(self) -> Path:
        return load.bodies_file(self.folder / "sentences.jsonl", list(itertools.chain.from_iterable(self.corpus.requests)))

    @cached_property
    def past_bodies(self) -> Path:
        return load.bodies_file(self.folder / "past.jsonl", past.bulk_requests())

    @cached_property
    def same_body(self) -> Path:
        return load.bodies_file(self.folder / "same.jsonl", self.corpus.short[:1])

    @cached_property
    def mixed_bodies(self) -> Path:
        return load.bodies_file(self.folder / "mixed.jsonl", mixture(self.corpus), formats=("base64", "float"))

    @cached_property
    def question_bodies(self) -> Path:
        return rerank.bodies_file(self.folder / "questions.jsonl", rerank.questions(self.corpus))

    @cached_property
    def hundred_bodies(self) -> Path:
        return rerank.bodies_file(self.folder / "hundreds.jsonl", rerank.hundreds(self.corpus))

    def bulk_http(self) -> Figures:
        return self.bulk(self.server)

    def bulk_float32(self) -> Figures:
        return self.bulk(self.variants["float32"])

    def bulk_int8(self) -> Figures:
        return self.bulk(self.server, self.bulk_bodies_of("int8"))

    def bulk_binary(self) -> Figures:
        return self.bulk(self.server, self.bulk_bodies_of("binary"))

    def recall(self) -> Figures:
        return recalls(self.server, self.corpus)

    def bulk_bodies_of(self, dtype: str) -> Path:
        return load.bodies_file(self.folder / f"bulk-{dtype}.jsonl", self.corpus.requests, output_dtype=dtype)

    def bulk(self, server: Server, bodies: Path | None = None) -> Figures:
        seen = load.load(server, bodies or self.bulk_bodies, clients=CLIENTS, seconds=self.seconds)
        texts = INPUTS * seen.requests_per_second
        return {"texts_per_second": texts, "tokens_per_second": texts * self.corpus.mean_tokens, **milliseconds(seen)}

    def bulk_encode(self) -> Figures:
        return self.workers["encode"].ask("bulk", self.seconds)

    def bulk_engine(self) -> Figures:
        return self.workers["engine"].ask("bulk", self.seconds)

    def single_http(self) -> Figures:
        seen = load.load(self.server, self.short_bodies, clients=1, seconds=self.seconds / 2)
        return {"texts_per_second": seen.requests_per_second, **milliseconds(seen)}

    def single_encode(self) -> Figures:
        return self.workers["encode"].ask("single", self.seconds / 2)

    def crowd_http(self) -> Figures:
        seen = load.load(self.server, self.short_bodies, clients=CROWD, seconds=self.seconds)
        texts = seen.requests_per_second
        return {"texts_per_second": texts, "tokens_per_second": texts * self.corpus.mean_short_tokens, **milliseconds(seen)}

    def level(self, clients: int) -> Figures:
        seen = load.load(self.server, self.short_bodies, clients=clients, seconds=self.seconds / 2)
        return {"texts_per_second": seen.requests_per_second, **milliseconds(seen)}

    def same_cached(self) -> Figures:
        seen = load.load(self.variants["cached"], self.same_body, clients=CACHED_CLIENTS, seconds=self.seconds)
        return {"requests_per_second": seen.requests_per_second, **milliseconds(seen)}

    def added_upstream(self) -> Figures:
        """Through the gateway, less what the stand-in takes when it is asked itself."""
        through, direct = (
            load.load(self.variants[name], self.short_bodies, clients=1, seconds=self.seconds / 2)
            for name in ("upstream", "standin")
        )
        return {
            "p50_ms": 1000 * (through.p50 - direct.p50),
            "through_p50_ms": 1000 * through.p50,
            "direct_p50_ms": 1000 * direct.p50,
        }

    def rate_upstream(self) -> Figures:
        seen = load.load(self.variants["upstream"], self.short_bodies, clients=CROWD, seconds=self.seconds)
        return {"requests_per_second": seen.requests_per_second, **milliseconds(seen)}

    def one_open(self) -> Figures:
        return self.one(self.variants["open"])

    def one_limited(self) -> Figures:
        return self.one(self.variants["limited"])

    def one_shared(self) -> Figures:
        return self.one(self.variants["shared"])

    def one(self, server: Server) -> Figures:
        seen = load.load(server, self.same_body, clients=1, seconds=self.seconds / 2)
        return {"requests_per_second": seen.requests_per_second, "p50_us": 1e6 * seen.p50, "p99_us": 1e6 * seen.p99}

    def fair(self) -> Figures:
        """Tokens of the many are counted by their replies; the rest of what the device did was for the one."""
        one = load.started(self.server, self.largest_bodies, clients=1, seconds=FAIR_SECONDS, key=OTHER_KEY)
        time.sleep(SETTLE_SECONDS)
        many = load.started(self.server, self.sentence_bodies, clients=FAIR_CLIENTS, seconds=FAIR_SECONDS)
        time.sleep(SETTLE_SECONDS)
        began, before = time.monotonic(), self.real_tokens()
        time.sleep(FAIR_SECONDS)
        ended, tokens = time.monotonic(), self.real_tokens() - before
        seen = load.finished(many, clients=FAIR_CLIENTS)
        load.finished(one, clients=1)
        num_replies = sum(began <= at < ended for at in seen.finished_at)
        of_many = num_replies * self.corpus.mean_tokens
        shares = sorted([of_many, tokens - of_many])
        return {
            "ratio": shares[0] / shares[1],
            "many_tokens_per_second": of_many / (ended - began),
            "one_tokens_per_second": (tokens - of_many) / (ended - began),
            "many_p50_ms": 1000 * seen.p50,
        }

    def text_with_past(self) -> Figures:
        """The key of all other sides; what its past lacks is embedded first."""
        past.give_past(self.server, KEY, self.past_tokens, past.bulk_requests())
        return self.text(KEY) | {"past_tokens": past.tokens_of(self.server, KEY)}

    def text_without_past(self) -> Figures:
        return self.text(next(past.unused_keys))

    def text(self, key: str) -> Figures:
        taken = past.beside_bulk(self.server, self.past_bodies, self.corpus.short, key=key, seconds=PAST_SECONDS)
        return {"texts": float(len(taken)), **{f"p{share}_ms": 1000 * queries.percentile(taken, share / 100) for share in (50, 99)}}

    def large_alone(self) -> Figures:
        return {"tokens_per_second": self.large(self.seconds)[0]}

    def large_with_queries(self) -> Figures:
        """Runs twice as long as the others: 5 queries a second are few to tell a p99 from."""
        tokens, taken = self.large(2 * self.seconds, rate=QUERIES_A_SECOND)
        tokens -= QUERIES_A_SECOND * self.corpus.mean_short_tokens
        percentiles = {f"p{share}_ms": 1000 * queries.percentile(taken, share / 100) for share in (50, 95, 99)}
        return {"tokens_per_second": tokens, "queries": float(len(taken)), **percentiles}

    def large(self, seconds: float, rate: float = 0) -> tuple[float, list[float]]:
        """Tokens a second, and what queries took. A request of 512 takes seconds, so what the device did is asked of /metrics."""
        process = load.started(self.server, self.large_bodies, clients=BULK_CLIENTS, seconds=seconds)
        time.sleep(SETTLE_SECONDS)
        began, before = time.monotonic(), self.real_tokens()
        taken = queries.latencies(self.server, self.corpus.short, rate=rate, seconds=seconds) if rate else []
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        tokens, elapsed = self.real_tokens() - before, time.monotonic() - began
        load.finished(process, clients=BULK_CLIENTS)
        return tokens / elapsed, taken

    def real_tokens(self) -> float:
        """Tokens the device ran, without the padding; batches are of nearly one size, so the mean of their ratios will do."""
        ratios, batches = (self.server.counted(f"gateway_batch_padding_ratio_{part}") for part in ("sum", "count"))
        return self.server.counted("gateway_batch_tokens_sum") * batches / ratios

    def scrape_crowded(self) -> Figures:
        """Of /metrics once every key has used a model, and every model was used."""
        server = self.variants["crowded"]
        client = queries.Client(server)
        for key, model in zip(MANY_KEYS, itertools.cycle(MANY_MODELS), strict=False):
            client.embed("a", model=model, key=key)
        taken = queries.scrapes(server, SCRAPES)
        return {f"p{share}_ms": 1000 * queries.percentile(taken, share / 100) for share in (50, 99)}

    def pairs_rerank(self) -> Figures:
        return self.pairs(self.variants["rerank"])

    def pairs_rerank32(self) -> Figures:
        return self.pairs(self.variants["rerank32"])

    def pairs(self, server: Server) -> Figures:
        rerank.refuse_other_scores(server, rerank.questions(self.corpus)[0], self.workers["predict"].about["expected"])
        seen = load.load(server, self.question_bodies, clients=CLIENTS, seconds=self.seconds, path="/v1/rerank")
        return {"pairs_per_second": INPUTS * seen.requests_per_second, **milliseconds(seen)}

    def pairs_predict(self) -> Figures:
        return self.workers["predict"].ask("bulk", self.seconds)

    def hundred_rerank(self) -> Figures:
        seen = load.load(self.variants["rerank"], self.hundred_bodies, clients=1, seconds=self.seconds, path="/v1/rerank")
        return milliseconds(seen)

    def hundred_predict(self) -> Figures:
        return self.workers["predict"].ask("hundred", self.seconds)

    def padding(self) -> Figures:
        """All of it is answered, so what ran and what was asked for are the same inputs."""
        names = ("gateway_batch_tokens_sum", "gateway_input_tokens_total")
        before = [self.server.counted(name) for name in names]
        queries.embed_all(self.server, self.corpus.requests[:PADDING_REQUESTS], clients=CLIENTS)
        padded, real = (self.server.counted(name) - was for name, was in zip(names, before, strict=True))
        return {"ratio": padded / real}

    def start(self) -> Figures:
        """Another of the same, in the same folder: what the first one compiled is there."""
        with Server(self.server.program, self.server.folder) as server:
            return {"seconds": server.start_seconds}

    def memory(self) -> Figures:
        kinds = {"resident_mb": "VmRSS", "peak_mb": "VmHWM"}
        return {name: self.server.memory_bytes(kind) / 1e6 for name, kind in kinds.items()}

    def growth(self) -> Figures:
        return grown(self.server, self.mixed_bodies, minutes=self.growth_minutes)


def milliseconds(seen: load.Load) -> Figures:
    return {"p50_ms": 1000 * seen.p50, "p95_ms": 1000 * seen.p95, "p99_ms": 1000 * seen.p99}
