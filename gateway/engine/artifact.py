"""A compiled model on disk: the network as OpenVINO's IR, the tokenizer, and a manifest that says what they were made from.

Written whole or not at all, kept under the key of what made it, refused when a byte of it changed. Reading one needs openvino and
tokenizers alone; making one is `compiler`'s, in a process of its own.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec
import numpy as np
from msgspec import Struct

from gateway.embedding.fingerprint import digest
from gateway.engine.encoder import EncoderInfo, NetworkInfo, Window
from gateway.engine.fidelity import Proof
from gateway.engine.identity import Identity, sha256_of
from gateway.errors import OperatorError

Runtime = Literal["openvino", "torch"]
FORMAT = 4
MAKING, ABANDONED_SECONDS = ".making-", 24 * 3600
MAX_RENAMES = 10  # into a place that others build at the same moment
NETWORK, WEIGHTS, TOKENIZER, MANIFEST = "model.xml", "model.bin", "tokenizer.json", "manifest.json"
CONTENT = (NETWORK, WEIGHTS, TOKENIZER)
CONTENTS = {"openvino": CONTENT, "torch": ()}  # by runtime: what torch runs is read from the model's own folder
LIBRARIES = ("openvino", "sentence-transformers", "torch", "transformers", "tokenizers")


class StoredProof(Struct, frozen=True):
    """A fidelity.Proof: `row` are the bytes of its vector, float32 in this machine's order."""

    token_ids: list[int]
    num_prompt_tokens: int
    row: bytes

    @classmethod
    def of(cls, proof: Proof) -> "StoredProof":
        return cls(proof.window.token_ids, proof.window.num_prompt_tokens, proof.row.astype(np.float32).tobytes())

    def read(self) -> Proof:
        return Proof(Window(self.token_ids, self.num_prompt_tokens), np.frombuffer(self.row, dtype=np.float32))


class Manifest(Struct, frozen=True, kw_only=True):
    """`fidelity` is the worst cosine to sentence-transformers in float32 over the probe texts; `files` are digests.

    `runtime` is what reached the bar. For "torch" the artifact is this manifest alone, and `fallback` says what did not, and why.
    `proof` is a short text's vector in float32, by which a start tells that what it loaded still is what was measured.
    `origin` is where the files of `source` were, a folder's absolute path or the name on the hub; `made_at` is in Unix seconds.
    """

    format: int
    source: str
    origin: str
    made_at: float
    asked_precision: str
    precision: str
    runtime: Runtime
    fallback: str
    identity: Identity
    libraries: dict[str, str]
    network: NetworkInfo
    fidelity: float
    max_probe_tokens: int
    proof: StoredProof
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class Target:
    """What an artifact is made of, and for."""

    source: str
    asked_precision: str
    identity: Identity


def manifest_of(  # noqa: PLR0913 - a field each
    info: EncoderInfo,
    target: Target,
    *,
    runtime: Runtime,
    precision: str,
    fallback: str,
    fidelity: float,
    max_probe_tokens: int,
    proof: Proof,
    files: Mapping[str, str] = MappingProxyType({}),
) -> Manifest:
    """`info` is what sentence-transformers' own network tells of itself, whichever runtime serves it."""
    return Manifest(
        format=FORMAT,
        source=target.source,
        origin=origin_of(target.source),
        made_at=time.time(),
        asked_precision=target.asked_precision,
        precision=precision,
        runtime=runtime,
        fallback=fallback,
        identity=target.identity,
        libraries=installed_libraries(),
        network=info.network,
        fidelity=fidelity,
        max_probe_tokens=max_probe_tokens,
        proof=StoredProof.of(proof),
        files=dict(files),
    )


def origin_of(source: str) -> str:
    """The folder a source names, however it is written; the source itself where it is a name on the hub."""
    folder = Path(source).expanduser()
    return str(folder.resolve()) if folder.is_dir() else source


def installed_libraries() -> dict[str, str]:
    """The versions of those that are here; an image that only serves has no torch."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    return versions


class ArtifactStore:
    """The folder of compiled models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, identity: Identity, precision: str) -> Path:
        """Where the artifact of these files in this precision is or would be."""
        return self.folder / digest(FORMAT, identity.parts(), precision)[:24]

    def find(self, identity: Identity, precision: str) -> Path | None:
        """The artifact's folder; None where there is none, or it is damaged, or made by other versions than those installed."""
        place = self.path(identity, precision)
        return place if read(place) is not None else None

    def find_by_source(self, source: str, precision: str) -> Path | None:
        """For machines that hold the artifact but not the files it was made from: the newest of those made from this source.

        Raises OperatorError where two folders of one name were compiled: which of them is meant, nobody can tell.
        """
        found: dict[Path, Manifest] = {}
        for place in self.folder.glob("*/"):
            manifest = read(place)
            if manifest is not None and (manifest.source, manifest.asked_precision) == (source, precision):
                found[place] = manifest
        origins = sorted({manifest.origin for manifest in found.values()})
        if len(origins) > 1:
            raise OperatorError(
                f"the files of '{source}' are not here, and {self.folder} holds models compiled from {' and from '.join(origins)};"
                f" remove one of {', '.join(sorted(map(str, found)))}"
            )
        return max(found, key=lambda place: found[place].made_at, default=None)

    def all(self) -> Iterator[tuple[Path, Manifest]]:
        """Every whole, current artifact."""
        for place in sorted(self.folder.glob("*/")):
            manifest = read(place)
            if manifest is not None:
                yield place, manifest

    def put(self, place: Path, make: Callable[[Path], None]) -> None:
        """`make` fills a temporary folder, which becomes `place` in one step. Of two that build at once, the last one stays.

        Raises OperatorError where the disk will not have it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob(f"{MAKING}*"):  # by a build that was killed
                if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)
            making = Path(tempfile.mkdtemp(prefix=MAKING, dir=self.folder))
            making.chmod(0o755)  # an image's models are made by root and served by another user
        except OSError as error:
            raise OperatorError(f"the folder of compiled models {self.folder} cannot be written: {error.strerror}") from None
        try:
            make(making)
            replace(making, place)
        except OSError as error:
            raise OperatorError(f"the compiled model cannot be written to {self.folder}: {error.strerror}") from None
        finally:
            shutil.rmtree(making, ignore_errors=True)


def replace(new: Path, place: Path) -> None:
    """A folder cannot be renamed over a full one: what is there steps aside first. Another builder may do the same meanwhile.

    Raises OSError where it cannot be done, and has then taken nothing away that another put there.
    """
    for number in range(MAX_RENAMES):
        try:
            new.rename(place)
        except OSError:
            if number == MAX_RENAMES - 1 or not place.exists():
                raise
            aside = Path(f"{new}-old-{number}")
            with suppress(FileNotFoundError):  # the other was quicker
                place.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            return


def read(place: Path) -> Manifest | None:
    """The manifest of a whole, current artifact, else None."""
    try:
        manifest = msgspec.json.decode((place / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError):
        return None
    installed = installed_libraries()
    is_current = manifest.format == FORMAT and all(
        installed.get(name, made_with) == made_with for name, made_with in manifest.libraries.items()
    )
    if not is_current or set(manifest.files) != set(CONTENTS[manifest.runtime]):
        return None
    try:
        is_whole = all(sha256_of(place / name) == expected for name, expected in manifest.files.items())
    except OperatorError:
        return None
    return manifest if is_whole else None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """The last file of an artifact; synced, so that a manifest that is there says that all before it is."""
    with (folder / MANIFEST).open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        file.flush()
        os.fsync(file.fileno())
