"""The tree in the docstring of gateway/errors/ is the tree of its classes."""

import re

import pytest

from gateway import errors
from gateway.errors import GatewayError

LINE = re.compile(r"^(?P<branch>[ │├└─]+)(?P<name>[A-Z]\w+)(?P<told>.*)$")
CLASSES = {
    name: each
    for name, each in vars(errors).items()
    if isinstance(each, type) and issubclass(each, Exception) and each.__module__.startswith(f"{errors.__name__}.")
}
LEAVES = [name for name, each in CLASSES.items() if issubclass(each, GatewayError) and not each.__subclasses__()]


def drawn() -> dict[str, tuple[str | None, str]]:
    """Each class of the drawing: whose child it is drawn as, and what stands behind its name."""
    tree: dict[str, tuple[str | None, str]] = {}
    above: list[tuple[int, str]] = []
    for line in map(LINE.match, (errors.__doc__ or "").splitlines()):
        if line is None:
            continue
        depth = len(line["branch"])
        above = [(column, name) for column, name in above if column < depth]
        tree[line["name"]] = (above[-1][1] if above else None, line["told"])
        above.append((depth, line["name"]))
    return tree


def test_every_class_is_drawn_and_nothing_else():
    assert set(drawn()) == set(CLASSES)
    assert len(CLASSES) > 20


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_drawn_under_its_parent(name):
    parent = CLASSES[name].__bases__[0]
    assert drawn()[name][0] == (parent.__name__ if parent is not Exception else None)


@pytest.mark.parametrize("name", LEAVES)
def test_a_leaf_is_drawn_with_its_status_and_code(name):
    error = CLASSES[name]
    parent, told = drawn()[name]
    own_words = told.split()
    assert (error.code in own_words) == (error.code is not None), told
    assert str(error.status) in own_words + drawn()[parent or name][1].replace(":", " ").split()


def test_codes_are_told_apart():
    codes = [CLASSES[name].code for name in LEAVES]
    assert len(codes) == len(set(codes))


def test_what_a_retry_cannot_help_says_so():
    """A 5xx without Retry-After would be sent again by every SDK, so it must say that it needs no retry, or be our own fault."""
    leaves = [CLASSES[name] for name in LEAVES]
    silent = {each.code for each in leaves if each.status >= 500 and each.status != 503 and each.should_retry is None}
    assert silent == {"internal_error"}
