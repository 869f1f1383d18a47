"""Runs `gateway` where nothing can be imported but the packages of a list: `only_listed.py LIST REPORT serve …`.

At the end REPORT tells, as JSON, which of the list were never imported and what was looked for beyond it. Runs in the gateway's own
environment, which holds far more than the list.
"""

import json
import re
import sys
from importlib.abc import MetaPathFinder
from importlib.metadata import packages_distributions
from pathlib import Path

OWNERS = packages_distributions()
OURS = {"gateway"}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


class OnlyListed(MetaPathFinder):
    """Says of every other installed package that it is not there."""

    def __init__(self, listed):
        self.listed = listed
        self.refused = set()

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in OWNERS or top in OURS or self.listed & set(map(normal, OWNERS[top])):
            return
        self.refused.add(top)
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main():
    listed = {normal(line.partition("==")[0]) for line in Path(sys.argv[1]).read_text().splitlines() if re.match(r"\w", line)}
    finder = OnlyListed(listed)
    sys.meta_path.insert(0, finder)
    report = Path(sys.argv[2])
    sys.argv = ["gateway", *sys.argv[3:]]
    from gateway.__main__ import main as gateway

    try:
        gateway()
    finally:
        tops = {name.partition(".")[0] for name in sys.modules}
        used = {normal(owner) for top in tops for owner in OWNERS.get(top, [])}
        report.write_text(json.dumps({"unused": sorted(listed - used), "refused": sorted(finder.refused)}))


main()
