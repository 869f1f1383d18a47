"""Which vectors these are. Vectors live for years; two models that could mix in one index must not look alike.

A fingerprint is the short digests of its parts, one after another, then runtime and precision behind a dot:
`<weights 8><tokenizer 4><pooling 4><prompts 4><long-input rule 4>.torch-float32`. So a pinned one that differs tells what changed,
without the old one being kept anywhere.
"""

import hashlib
from dataclasses import dataclass, fields

import msgspec


def digest(*contents: object) -> str:
    """SHA-256, as hex, of what JSON can say of `contents`."""
    return hashlib.sha256(msgspec.json.encode(contents, order="sorted")).hexdigest()


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Each part as the hex digest of what makes it; `runtime` is such as "torch-float32".

    `weights` is of the network: its numbers, and the configuration that says what is computed with them.
    """

    weights: str
    tokenizer: str
    pooling: str
    prompts: str
    long_input: str
    runtime: str

    def __str__(self) -> str:
        return "".join(getattr(self, part)[:length] for part, length in PARTS.items()) + f".{self.runtime}"


NAMES = {"weights": "weights or configuration", "long_input": "long-input rule"}  # where the operator reads another one
PARTS = {field.name: 8 if field.name == "weights" else 4 for field in fields(Fingerprint)[:-1]}


def changes(pinned: str, found: str) -> list[str]:
    """The names of the parts in which two fingerprints differ; all of it where they are not alike in form."""
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
