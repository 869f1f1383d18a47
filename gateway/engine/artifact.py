"""A compiled model on disk: the network as OpenVINO's IR, the tokenizer, and a manifest that says what they were made from.

An artifact is written atomically, stored under a digest of its inputs, and rejected if a byte of it changed. Reading one needs only
openvino and tokenizers. `compiler` makes them, in a separate process.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec
import numpy as np
from msgspec import Struct

from gateway.embedding.embedder import ModelKind
from gateway.embedding.fingerprint import digest
from gateway.engine.encoder import EncoderInfo, NetworkInfo, Window
from gateway.engine.fidelity import Proof
from gateway.engine.identity import Identity, sha256_of
from gateway.errors import OperatorError

Runtime = Literal["openvino", "torch", "numpy"]
FORMAT = 8
MAKING, ABANDONED_SECONDS = ".making-", 24 * 3600
MAX_RENAMES = 10  # to a path that other processes build at the same moment
NETWORK, WEIGHTS, TOKENIZER, MANIFEST = "model.xml", "model.bin", "tokenizer.json", "manifest.json"
CONTENT = (NETWORK, WEIGHTS, TOKENIZER)
CONTENTS = {"openvino": CONTENT, "torch": (), "numpy": ()}  # by runtime: the last two read the model's own folder
LIBRARIES = ("openvino", "sentence-transformers", "torch", "transformers", "tokenizers")


class StoredProof(Struct, frozen=True):
    """A fidelity.Proof as the manifest stores it: `row` is its vector's bytes, float32 in this machine's byte order."""

    kind: ModelKind
    token_ids: list[int]
    num_prompt_tokens: int
    num_query_tokens: int
    row: bytes
    bound: float | None

    @classmethod
    def of(cls, proof: Proof) -> "StoredProof":
        window = proof.window
        row = proof.row.astype(np.float32).tobytes()
        return cls(proof.kind, window.token_ids, window.num_prompt_tokens, window.num_query_tokens, row, proof.bound)

    def read(self) -> Proof:
        window = Window(self.token_ids, self.num_prompt_tokens, num_query_tokens=self.num_query_tokens)
        return Proof(window, np.frombuffer(self.row, dtype=np.float32), self.kind, self.bound)


class Manifest(Struct, frozen=True, kw_only=True):
    """How an artifact was made and measured.

    `fidelity` is that to sentence-transformers in float32, as `gateway.engine.fidelity` says. `runtime` is the one that reached the
    minimum; for "torch" and "numpy" the artifact is this manifest alone. `fallback` says which attempts did not reach it, and why.
    `proof` is a short text with its vector in float32: each start checks the loaded model against it.
    `calibration` identifies the texts that calibrated an 8-bit network, "" for any other; `nearest_kept` is the share of the
    ten nearest that its vectors of held-out texts keep.
    `origin` is where the files of `source` were: a folder's absolute path, or the name on the hub. `revision` is what its row asked
    the hub for. `made_at` is in Unix seconds, `files` are SHA-256 digests.
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
    revision: str | None = None
    calibration: str = ""
    nearest_kept: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The model's source and files that an artifact is made from, and the precision it is made for."""

    source: str
    asked_precision: str
    identity: Identity
    revision: str | None = None


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
    calibration: str = "",
) -> Manifest:
    """Builds a manifest. `info` describes sentence-transformers' own network, whichever runtime serves it."""
    return Manifest(
        format=FORMAT,
        source=target.source,
        origin=_origin_of(target.source),
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
        revision=target.revision,
        calibration=calibration,
    )


def _origin_of(source: str) -> str:
    """Returns the absolute path if the source is a folder, else the source itself, a name on the hub."""
    folder = Path(source).expanduser()
    return str(folder.resolve()) if folder.is_dir() else source


def installed_libraries() -> dict[str, str]:
    """The versions of the LIBRARIES that are installed; an image that only serves has no torch."""
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
        """The folder for an artifact of these files in this precision, whether it exists or not."""
        return self.folder / digest(FORMAT, identity.parts(), precision)[:24]

    def find(self, identity: Identity, precision: str) -> Path | None:
        """Returns the artifact's folder; None if it is missing, damaged, or made by other library versions than those installed."""
        path = self.path(identity, precision)
        return path if read(path) is not None else None

    def find_by_source(self, source: str, precision: str, revision: str | None = None) -> Path | None:
        """The newest artifact made from this source, for machines that have the artifact but not the model's files.

        Returns None if there is none. Raises OperatorError if two folders of this name were compiled, as it is unknown which of
        them is meant.
        """
        found: dict[Path, Manifest] = {}
        for path in self.folder.glob("*/"):
            manifest = read(path)
            if manifest is None or (manifest.source, manifest.asked_precision, manifest.revision) != (source, precision, revision):
                continue
            found[path] = manifest
        origins = sorted({manifest.origin for manifest in found.values()})
        if len(origins) > 1:
            raise OperatorError(
                f"the files of '{source}' are not on this machine, and {self.folder} holds models compiled from"
                f" {' and from '.join(origins)}; remove one of {', '.join(sorted(map(str, found)))}"
            )
        return max(found, key=lambda path: found[path].made_at, default=None)

    def all(self) -> Iterator[tuple[Path, Manifest]]:
        """Every undamaged artifact made by the installed library versions, with its folder."""
        for path in sorted(self.folder.glob("*/")):
            manifest = read(path)
            if manifest is not None:
                yield path, manifest

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A temporary folder beside the artifacts. Raises OperatorError if the folder cannot be written."""
        making = self._make_folder()
        try:
            yield making
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def adopt(self, other: "ArtifactStore", identity: Identity, precision: str) -> None:
        """Takes over an artifact that a process made which is not trusted. Raises OperatorError if it is not of these files."""
        made, path = other.path(identity, precision), self.path(identity, precision)
        manifest = read(made) if made.is_dir() and not any(each.is_symlink() for each in (made, *made.iterdir())) else None
        if manifest is None or manifest.identity.parts() != identity.parts():
            raise OperatorError("compiling the model ended without a compiled model")
        try:
            replace(made, path)
        except OSError as error:
            raise OperatorError(f"the compiled model cannot be written to {self.folder}: {error.strerror}") from None

    def put(self, path: Path, make: Callable[[Path], None]) -> None:
        """Atomic write: `make` fills a temporary folder, which is then renamed to `path`. Of concurrent builds the last one wins.

        Raises OperatorError if the folder cannot be written.
        """
        making = self._make_folder()
        making.chmod(0o755)  # in an image, root compiles the models and another user serves them
        try:
            make(making)
            replace(making, path)
        except OSError as error:
            raise OperatorError(f"the compiled model cannot be written to {self.folder}: {error.strerror}") from None
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def _make_folder(self) -> Path:
        """Makes a temporary folder, and clears away those of builds that were killed."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob(f"{MAKING}*"):  # left by a build that was killed
                if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)
            return Path(tempfile.mkdtemp(prefix=MAKING, dir=self.folder))
        except OSError as error:
            raise OperatorError(f"the folder of compiled models {self.folder} cannot be written: {error.strerror}") from None


def replace(new: Path, path: Path) -> None:
    """Renames `new` to `path`. A non-empty folder cannot be overwritten, so it is moved aside first. Another build may do so too.

    Raises OSError if the rename fails; an artifact that another builder put there is then left in place.
    """
    for number in range(MAX_RENAMES):
        try:
            new.rename(path)
        except OSError:
            if number == MAX_RENAMES - 1 or not path.exists():
                raise
            aside = Path(f"{new}-old-{number}")
            with suppress(FileNotFoundError):  # the other builder moved it first
                path.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            return


def read(path: Path) -> Manifest | None:
    """Returns the manifest; None if the artifact is missing, damaged, or made by other library versions than those installed."""
    try:
        manifest = msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError):
        return None
    installed = installed_libraries()
    is_current = manifest.format == FORMAT and all(
        installed.get(name, made_with) == made_with for name, made_with in manifest.libraries.items()
    )
    if not is_current or set(manifest.files) != set(CONTENTS[manifest.runtime]):
        return None
    try:
        is_whole = all(sha256_of(path / name) == expected for name, expected in manifest.files.items())
    except OperatorError:
        return None
    return manifest if is_whole else None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest, the last file of an artifact, and syncs it to disk: if it exists, so do all files before it."""
    with (folder / MANIFEST).open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        file.flush()
        os.fsync(file.fileno())
