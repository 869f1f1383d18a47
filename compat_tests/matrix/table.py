"""The matrix as the README shows it, written from cells.py and the pinned versions: `python -m compat_tests.matrix.table`."""

import json
import re
from collections.abc import Iterator

from compat_tests.matrix.cells import CLIENTS, COLUMNS, Client
from compat_tests.matrix.program import NODE_FOLDER
from compat_tests.process import ROOT

README = ROOT / "compat_tests/README.md"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
PINNED = ROOT / "deploy/constraints-compat.txt"
PINNED_LITELLM = ROOT / "compat_tests/matrix/litellm-requirements.txt"
PINNED_NODE = NODE_FOLDER / "package-lock.json"


def table() -> str:
    return "\n".join([*rows(), "", *reasons()])


def rows() -> Iterator[str]:
    yield f"| client | version | {' | '.join(COLUMNS)} |"
    yield "|---" * (2 + len(COLUMNS)) + "|"
    for client in CLIENTS:
        cells = ["✓" if client.can(column) else f"no ({numbers()[client.cannot[column]]})" for column in COLUMNS]
        yield f"| {client.title} | {pinned_version(client)} | {' | '.join(cells)} |"


def reasons() -> Iterator[str]:
    for reason, number in numbers().items():
        yield f"({number}) {reason}.  "


def numbers() -> dict[str, int]:
    """Every reason once, numbered as the table comes to it."""
    found = [client.cannot[column] for client in CLIENTS for column in COLUMNS if not client.can(column)]
    return {reason: number for number, reason in enumerate(dict.fromkeys(found), start=1)}


def pinned_version(client: Client) -> str:
    """The version that the files here pin; curl is the system's."""
    if not client.package:
        return "the system's"
    if client.is_node:
        packages = json.loads(PINNED_NODE.read_text(encoding="utf-8"))["packages"]
        return str(packages[f"node_modules/{client.package}"]["version"])
    file = PINNED_LITELLM if client.package == "litellm" else PINNED
    found = re.search(rf"^{re.escape(client.package)}==(\S+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert found, f"{client.package} is not pinned in {file}"
    return found[1]


def in_readme() -> str:
    """What stands between the two marks."""
    return README.read_text(encoding="utf-8").partition(f"{BEGIN}\n")[2].partition(f"\n{END}")[0]


def main() -> None:
    before, _, rest = README.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    after = rest.partition(END)[2]
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")
    print(README.relative_to(ROOT))


if __name__ == "__main__":
    main()
