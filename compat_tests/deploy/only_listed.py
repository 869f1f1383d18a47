"""Runs `gateway` where nothing can be imported but the packages of a list: `only_listed.py LIST REPORT serve …`.

At the end REPORT tells, as JSON, which of the list were never imported and what was looked for beyond it. Runs in the gateway's own
environment, which holds far more than the list.
"""

import json
import re
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions
from pathlib import Path

OWNERS = packages_distributions()
OURS = {"gateway"}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


class OnlyListed(MetaPathFinder):
    """In the place of PathFinder: finds what is listed, and of every other installed package nothing, as if it were not there.

    It raises nothing: who only asks whether a package is there, as yarl does, is told that it is not.
    """

    find_distributions = staticmethod(PathFinder.find_distributions)

    def __init__(self, listed):
        self.listed = listed
        self.refused = set()

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in OWNERS or top in OURS or self.listed & set(map(normal, OWNERS[top])):
            return PathFinder.find_spec(name, path, target)
        self.refused.add(top)
        return None


def main():
    listed = {normal(line.partition("==")[0]) for line in Path(sys.argv[1]).read_text().splitlines() if re.match(r"\w", line)}
    finder = OnlyListed(listed)
    sys.meta_path[sys.meta_path.index(PathFinder)] = finder
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
