"""Tasks and threads are begun in one place, so that each death is logged; and pauses between tries have one form."""

import ast
from pathlib import Path

import pytest

import gateway

ROOT = Path(gateway.__file__).parent
HOME = ROOT / "background.py"
BESIDE = {ROOT / "tests", ROOT / "testing"}
BEGINNERS = {"create_task", "ensure_future", "Thread", "Timer", "start_new_thread", "run_coroutine_threadsafe"}


def sources() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if path != HOME and not BESIDE & set(path.parents)]


def name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def task_groups(tree: ast.AST) -> set[str]:
    """The names of `async with asyncio.TaskGroup() as name`: such a group waits for its tasks, and raises what they raise."""
    items = [item for node in ast.walk(tree) if isinstance(node, ast.AsyncWith) for item in node.items]
    return {
        name_of(item.optional_vars)
        for item in items
        if item.optional_vars and isinstance(item.context_expr, ast.Call) and name_of(item.context_expr.func) == "TaskGroup"
    }


def begun_elsewhere(source: str) -> list[int]:
    """The lines that begin a task or a thread by themselves."""
    tree = ast.parse(source)
    groups = task_groups(tree)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and name_of(node.func) in BEGINNERS]
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module in {"asyncio", "threading"}]
    imported = [node.lineno for node in imports if BEGINNERS & {each.name for each in node.names}]
    free = [call for call in calls if not (isinstance(call.func, ast.Attribute) and name_of(call.func.value) in groups)]
    return sorted({*imported, *(call.lineno for call in free)})


WAYS = [
    "asyncio.create_task(a())",
    "loop.create_task(a())",
    "asyncio.ensure_future(a())",
    "threading.Thread(target=a).start()",
    "from threading import Thread as T",
    "from asyncio import create_task as begin",
    "threading.Timer(1, a)",
]


@pytest.mark.parametrize("source", WAYS)
def test_every_way_to_begin_one_is_recognised(source):
    assert begun_elsewhere(source) == [1]


def test_a_group_that_waits_for_its_tasks_is_none():
    assert begun_elsewhere("async def a():\n async with asyncio.TaskGroup() as group:\n  group.create_task(b())") == []


def test_tasks_and_threads_are_begun_in_background_alone():
    found = {str(path.relative_to(ROOT)): begun_elsewhere(path.read_text(encoding="utf-8")) for path in sources()}
    assert {name: lines for name, lines in found.items() if lines} == {}


def runs_for_ever(function: ast.AST) -> bool:
    return any(
        isinstance(node, ast.While) and isinstance(node.test, ast.Constant) and node.test.value for node in ast.walk(function)
    )


def launched(tree: ast.AST) -> set[str]:
    """The names of the functions whose coroutines are given to `launch`."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and name_of(node.func) == "launch" and node.args]
    return {name_of(call.args[0].func) for call in calls if isinstance(call.args[0], ast.Call)}


ENDS_WITH_ITS_PROCESS = {"cluster/ray_client.py"}  # which is over as soon as one of its two loops is; the gateway is told why


def test_what_is_launched_ends_by_itself():
    """What has no end is a BackgroundTask, whose death is seen."""
    endless = []
    for path in sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
        endless += [
            f"{path.relative_to(ROOT)}:{each.lineno}" for each in functions if each.name in launched(tree) and runs_for_ever(each)
        ]
    assert {each.partition(":")[0] for each in endless} <= ENDS_WITH_ITS_PROCESS


def doubles(source: str) -> list[int]:
    """The lines that look like a backoff made by hand: something doubled under a bound, or to a power of two."""
    found = []
    for node in ast.walk(ast.parse(source)):
        is_min = isinstance(node, ast.Call) and name_of(node.func) == "min"
        for argument in node.args if is_min else []:
            products = [
                each for each in ast.walk(argument) if isinstance(each, ast.BinOp) and isinstance(each.op, ast.Mult | ast.Pow)
            ]
            if any(isinstance(each.left, ast.Constant) and each.left.value == 2 for each in products):
                found.append(node.lineno)
    return found


@pytest.mark.parametrize("source", ["pause = min(2 * pause, 4.0)", "min(first * 2**tries, most)", "x = min(2.0 * x, y)"])
def test_a_backoff_made_by_hand_is_recognised(source):
    assert doubles(source) == [1]


def test_pauses_between_tries_have_one_form():
    rooms = [path for path in sources() if path != ROOT / "backoff.py" and path.parent.name not in {"engine", "capacity"}]
    found = {str(path.relative_to(ROOT)): doubles(path.read_text(encoding="utf-8")) for path in rooms}
    assert {name: lines for name, lines in found.items() if lines} == {}
