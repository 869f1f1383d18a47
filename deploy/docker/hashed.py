"""Writes hashed/*.txt: every package that a build of the images installs, by version and by the hashes of its wheels.

    .venv/bin/python deploy/docker/hashed.py

Run it after deploy/constraints.txt or a list beside this file has changed. The hashes are those that the index tells pip
(`pip install --dry-run --report`), of the wheels for Linux on x86-64 and on ARM. A build then refuses any other file
(`pip install --require-hashes`).
Torch and what it alone needs are left out, since their files depend on the index that is chosen.
"""

import json
import subprocess
import sys
import tempfile
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DOCKER = Path(__file__).parent
ROOT = DOCKER.parents[1]
CONSTRAINTS = ROOT / "deploy/constraints.txt"
PYTHON = "3.11"
PLATFORMS = [
    [
        f"manylinux{version}_{machine}"
        for version in (
            "_2_36",
            "_2_35",
            "_2_34",
            "_2_33",
            "_2_32",
            "_2_31",
            "_2_28",
            "_2_27",
            "_2_24",
            "_2_17",
            "2014",
            "_2_12",
            "_2_5",
            "2010",
            "1",
        )
    ]
    for machine in ("x86_64", "aarch64")
]
OF_TORCH = ("torch", "triton", "nvidia-", "cuda-")
GATEWAY, EXTRAS = "embeddings-gateway", ("minilm", "otel", "postgres", "redis", "s3")
# What each is made of: a list that is whole, or a requirement whose own requirements come with it.
LISTS = {
    "serve": ["--no-deps", "-r", str(DOCKER / "requirements-serve.txt")],
    "build": ["--no-deps"],  # and what the gateway needs, in the versions of the constraints
    "wheel": ["hatchling==1.33.0"],
    "sbom": ["cyclonedx-bom==7.5.0"],
}
Hashes = dict[str, set[str]]  # by requirement, `name==version`


def main() -> None:
    LISTS["build"] += needed()
    for name, wanted in LISTS.items():
        found: Hashes = {}
        for platforms in PLATFORMS:
            for requirement, hashes in hashes_of(wanted, platforms).items():
                found.setdefault(requirement, set()).update(hashes)
        path = DOCKER / "hashed" / f"{name}.txt"
        path.write_text(text_of(found), encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {len(found)} packages")


def needed() -> list[str]:
    """What the gateway with its extras needs, and what that needs, as installed here. Torch is not asked of an index at all."""
    pins = dict(line.split("==") for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if "==" in line)
    versions = {canonicalize_name(name): version for name, version in pins.items()}
    found: set[str] = set()
    waiting = [(GATEWAY, EXTRAS)]
    while waiting:
        name, extras = waiting.pop()
        for text in requires(name) or ():
            requirement = Requirement(text)
            marker, needs = requirement.marker, canonicalize_name(requirement.name)
            is_wanted = marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, ""))
            if is_wanted and needs not in found:
                found.add(needs)
                waiting.append((needs, tuple(requirement.extras)))
    # setuptools, which torch alone wants, is no package of the constraints: it comes with torch.
    return [f"{name}=={versions[name]}" for name in sorted(found & versions.keys()) if not name.startswith(OF_TORCH)]


def hashes_of(wanted: list[str], platforms: list[str]) -> Hashes:
    """What pip would install on such a machine. Nothing is installed; of most wheels only the metadata is fetched."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            *(sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--dry-run", "--ignore-installed"),
            *("--only-binary", ":all:", "--python-version", PYTHON, "--target", folder, "--report", str(report)),
            *(word for platform in platforms for word in ("--platform", platform)),
        ]
        subprocess.run([*command, *wanted], check=True)
        installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {
        f"{each['metadata']['name']}=={each['metadata']['version']}": {each["download_info"]["archive_info"]["hashes"]["sha256"]}
        for each in installed
        if "archive_info" in each["download_info"] and not each["metadata"]["name"].lower().startswith(OF_TORCH)
    }


def text_of(found: Hashes) -> str:
    rows = (
        requirement + "".join(f" \\\n    --hash=sha256:{each}" for each in sorted(found[requirement]))
        for requirement in sorted(found, key=str.lower)
    )
    return "\n".join(["# Written by deploy/docker/hashed.py.", *rows]) + "\n"


if __name__ == "__main__":
    main()
