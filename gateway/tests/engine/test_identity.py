"""Every file and field that can decide a vector is in a model's identity, and nothing else is."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from gateway.engine.artifact import ArtifactStore
from gateway.engine.identity import files_of, identity_of
from gateway.errors import OperatorError
from gateway.testing import model_folders as folders

BASES = ["bert-cls-dense", "bert-prompts", "bert-cut", "modernbert"]
SHELF = ArtifactStore(Path("nowhere"))


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    under = tmp_path_factory.mktemp("bases")
    return {name: folders.base(name, under) for name in BASES}


def key(folder):
    """The name under which it lies compiled, and what a fingerprint is made of."""
    identity = identity_of(folder)
    return SHELF.path(identity, "float32").name, identity


def leaves(value, path=()):
    """The paths to everything in a JSON value that is neither table nor list, and to those that are empty."""
    if isinstance(value, dict) and value:
        return [each for name, inner in value.items() for each in leaves(inner, (*path, name))]
    if isinstance(value, list) and value:
        return [each for number, inner in enumerate(value) for each in leaves(inner, (*path, number))]
    return [path]


def other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}x" if isinstance(value, str) else "x"


def changed(content, path, *, removed):
    """A copy with one field changed, or taken out."""
    copy = json.loads(json.dumps(content))
    holder = copy
    for step in path[:-1]:
        holder = holder[step]
    if removed:
        del holder[path[-1]]
    else:
        holder[path[-1]] = other(holder[path[-1]])
    return copy


def json_files(folder):
    return [path for path in sorted(folder.rglob("*.json")) if path.stat().st_size]


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("removed", [False, True], ids=["changed", "removed"])
def test_each_field_of_each_file_is_in_identity_and_shelf(name, removed, bases):
    folder = bases[name]
    before, num_edits = key(folder), 0
    for path in json_files(folder):
        text = path.read_text()
        content = json.loads(text)
        fields = [each for each in leaves(content) if each]
        # A vocabulary's words are all alike: some of them stand for all.
        for each in fields[:: max(1, len(fields) // 40)]:
            path.write_text(json.dumps(changed(content, each, removed=removed)))
            after = key(folder)
            assert after[0] != before[0], (path.name, each)
            assert after[1].parts() != before[1].parts(), (path.name, each)
            num_edits += 1
        path.write_text(text)
    assert key(folder)[0] == before[0]
    assert num_edits > 100


ADDED = (
    "added_tokens.json", "vocab.txt", "tokenizer.model", "chat_template.jinja", "sentence_roberta_config.json", "modeling.py",
    "adapter_config.json", "preprocessor_config.json", "config.5.0.0.json", "1_Pooling/x.json",
)  # fmt: skip


@pytest.mark.parametrize("name", BASES)
def test_each_file_taken_away_or_added_is_in_it(name, bases, tmp_path):
    folder = bases[name]
    before = key(folder)[0]
    removed = [path for path in folder.rglob("*") if path.is_file() and path.name != "model.safetensors"]
    for path in removed:
        content = path.read_bytes()
        path.unlink()
        assert key(folder)[0] != before, path
        path.write_bytes(content)
    for added in ADDED:
        path = folder / added
        path.write_text("{}")
        assert key(folder)[0] != before, added
        path.unlink()
    assert key(folder)[0] == before


HARMLESS = {
    "README.md": "# A model",
    "LICENSE": "Apache",
    ".gitattributes": "*",
    "notes.txt": "mine",
    "notes.json": "{}",
    "data_config.json": "[]",
    "training_args.bin": "x",
    "optimizer.pt": "x",
    "pytorch_model.bin": "x",  # behind model.safetensors nobody reads it
    "onnx/model.onnx": "x",
    "onnx/config.json": "{}",
    "checkpoint-500/model.safetensors": "x",
    "eval/results.csv": "x",
    ".cache/huggingface/download/config.json.metadata": "x",
    "1_Pooling/README.md": "x",
}


@pytest.mark.parametrize("added", HARMLESS)
def test_what_nobody_reads_changes_nothing(added, bases):
    folder = bases["bert-cls-dense"]
    before = key(folder)
    path = folder / added
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HARMLESS[added])
    assert key(folder) == before
    path.unlink()


@pytest.mark.parametrize("name", BASES)
def test_times_and_the_order_of_keys_and_white_space_change_nothing(name, bases):
    folder = bases[name]
    before = key(folder)[0]
    for path in json_files(folder):
        text = path.read_text()
        content = json.loads(text)
        turned = dict(reversed(content.items())) if isinstance(content, dict) else content
        path.write_text(json.dumps(turned, indent=7))
        os.utime(path, (1, 1))
        assert key(folder)[0] == before, path
        path.write_text(text)
    os.utime(folder / "model.safetensors", (1, 1))
    assert key(folder)[0] == before


def test_a_routers_first_route_is_its_default_so_its_order_counts(bases, tmp_path):
    folder = shutil.copytree(bases["bert-cut"], tmp_path / "router")
    file = folder / "1_Pooling" / "router_config.json"
    file.write_text(json.dumps({"types": {}, "structure": {"query": [], "document": []}}))
    before = key(folder)[0]
    file.write_text(json.dumps({"types": {}, "structure": {"document": [], "query": []}}))
    assert key(folder)[0] != before


def test_each_shard_is_in_it(bases, tmp_path):
    folder = shutil.copytree(bases["bert-cut"], tmp_path / "sharded")
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, half in halves.items():
        save_file({name: tensors[name] for name in half}, folder / file)
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {name: file for file, half in halves.items() for name in half}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    before = key(folder)[0]
    for file in halves:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert key(folder)[0] != before
        (folder / file).write_bytes(content)
    (folder / "model-3.safetensors").write_bytes(b"not in the index")
    assert key(folder)[0] == before


def test_a_modules_own_weights_are_in_it(bases, tmp_path):
    folder = shutil.copytree(bases["bert-cls-dense"], tmp_path / "dense")
    before = key(folder)[0]
    [dense] = folder.glob("*_Dense/model.safetensors")
    content = dense.read_bytes()
    dense.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert key(folder)[0] != before


def test_a_variant_that_the_options_choose_is_in_it(bases, tmp_path):
    folder = shutil.copytree(bases["bert-cut"], tmp_path / "variant")
    shutil.copy(folder / "model.safetensors", folder / "model.half.safetensors")
    folders.edit(folder / "sentence_bert_config.json", model_args={"variant": "half"})
    before = key(folder)[0]
    (folder / "model.half.safetensors").write_bytes(b"others")
    assert key(folder)[0] != before


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '"x"', "\x00", "[" * 5000], ids=["empty", "cut", "list", "text", "nul", "deep"]
)
@pytest.mark.parametrize("file", ["modules.json", "config.json", "1_Pooling/config.json", "sentence_bert_config.json"])
def test_a_broken_file_is_one_line_or_another_identity(content, file, bases, tmp_path):
    folder = shutil.copytree(bases["bert-cut"], tmp_path / "broken")
    before = key(folder)[0]
    (folder / file).write_text(content)
    try:
        after = key(folder)[0]
    except OperatorError as error:
        after = str(error)
    assert after != before
    assert "\n" not in after


@pytest.mark.parametrize("age_seconds", [0, 10], ids=["just written", "long there"])
def test_a_change_is_seen_whatever_the_time_of_the_file_says(age_seconds, bases, tmp_path, monkeypatch):
    """Bytes changed in place, of the same length, with the former time put back."""
    folder = shutil.copytree(bases["bert-cut"], tmp_path / "model")
    path = folder / "model.safetensors"
    now = time.time() + age_seconds
    monkeypatch.setattr(time, "time", lambda: now)
    before, about = key(folder), path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    if age_seconds:  # the file system's clock ticks every few milliseconds
        while path.stat().st_ctime_ns == about.st_ctime_ns:
            os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert key(folder)[0] != before[0]


WATCHED = """
    import json, sys
    from pathlib import Path
    from sentence_transformers import SentenceTransformer
    seen = set()

    def watch(event, arguments):
        if event == "open" and isinstance(arguments[0], str):
            seen.add(arguments[0])
    sys.addaudithook(watch)
    for folder in sys.argv[1:]:
        SentenceTransformer(folder, device="cpu", local_files_only=True).encode(["a", "b c"])
    print(json.dumps(sorted(seen)))
"""


def test_each_file_that_sentence_transformers_opens_is_in_it(bases, tmp_path):
    whole = [folder.resolve() for folder in bases.values()]
    without = [folders.bare(folder, tmp_path / folder.name).resolve() for folder in whole]
    code = [sys.executable, "-c", textwrap.dedent(WATCHED), *whole, *without]
    ended = subprocess.run(code, capture_output=True, text=True, check=True)
    opened = {Path(path) for path in json.loads(ended.stdout.splitlines()[-1])}
    for folder in (*whole, *without):
        known = {path for paths in files_of(folder).values() for path in paths}
        seen = {path for path in opened if path.is_relative_to(folder) and path.name != "README.md"}
        assert len(seen) > 2
        assert seen <= known
