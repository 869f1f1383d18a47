"""A fingerprint identifies a model's vectors. Vectors live for years; two models that could mix in one index must have two of them.

It concatenates short digests of its parts, then a dot, the runtime and the precision:
`<weights 8><tokenizer 4><pooling 4><prompts 4><long-input rule 4>.torch-float32`. So comparing a pinned fingerprint with the
present one shows which part changed; nothing else of the old model needs to be stored.
"""

import hashlib
from dataclasses import dataclass, fields

import msgspec


def digest(*contents: object) -> str:
    """SHA-256, in hex, of `contents` as JSON."""
    return hashlib.sha256(msgspec.json.encode(contents, order="sorted")).hexdigest()


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Each part is a hex digest; `runtime` is runtime and precision, for example "torch-float32".

    `weights` is a digest of the network: its numbers, and the configuration that says what is computed with them.
    """

    weights: str
    tokenizer: str
    pooling: str
    prompts: str
    long_input: str
    runtime: str

    def __str__(self) -> str:
        return "".join(getattr(self, part)[:length] for part, length in PARTS.items()) + f".{self.runtime}"


NAMES = {
    "weights": "weights or configuration",
    "long_input": "long-input rule",
}  # names for the operator that differ from the field's
PARTS = {field.name: 8 if field.name == "weights" else 4 for field in fields(Fingerprint)[:-1]}


def changes(pinned: str, found: str) -> list[str]:
    """The names of the parts in which two fingerprints differ; "the whole model" if their forms differ."""
    (pinned_parts, _, pinned_runtime), (found_parts, _, found_runtime) = pinned.partition("."), found.partition(".")
    if not len(pinned_parts) == len(found_parts) == sum(PARTS.values()):
        return ["the whole model"] if pinned != found else []
    changed = []
    start = 0
    for part, length in PARTS.items():
        if pinned_parts[start : start + length] != found_parts[start : start + length]:
            changed.append(NAMES.get(part, part))
        start += length
    return changed + (["runtime or precision"] if pinned_runtime != found_runtime else [])
