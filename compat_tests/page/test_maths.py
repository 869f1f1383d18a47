"""What the page computes, beside what numpy computes of the same vectors."""

import base64
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from compat_tests.page.visit import Visit

Matrix = np.ndarray[Any, np.dtype[np.float32]]


def cloud(n: int, d: int, seed: int = 1) -> Matrix:
    """Unit vectors around five centres, as embeddings are."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(5, d))[np.arange(n) % 5] + 0.6 * random.normal(size=(n, d))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def computed(visit: Visit, name: str, call: str, rows: Matrix) -> Any:
    """What `call` gives, `it` being a module of the page and `vectors` the rows as the page has them."""
    script = f"""async (rows) => {{
        const it = await import('/page/{name}.js');
        const vectors = rows.map((row) => Float32Array.from(row));
        return {call};
    }}"""
    return visit.page.evaluate(script, rows.tolist())


@pytest.mark.parametrize(("n", "d"), [(2, 384), (3, 5), (5, 384), (8, 3), (30, 384), (200, 384), (500, 64)])
def test_the_plane_is_that_of_numpy(visit: Visit, n: int, d: int) -> None:
    rows = cloud(n, d)
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    expected = (left * singular)[:, :2]
    found = computed(visit, "maths", "it.plane(it.products(vectors), vectors.length)", rows)
    points = np.array(found["points"])
    for axis in range(2):
        sign = np.sign(expected[:, axis] @ points[:, axis]) or 1
        assert np.abs(points[:, axis] - sign * expected[:, axis]).max() < 1e-4
    assert found["shares"] == pytest.approx(singular[:2] ** 2 / (singular**2).sum(), abs=1e-6)


def test_the_same_texts_give_the_same_plane(visit: Visit) -> None:
    rows = cloud(40, 64)
    assert computed(visit, "maths", "it.plane(it.products(vectors), vectors.length)", rows) == computed(
        visit, "maths", "it.plane(it.products(vectors), vectors.length)", rows
    )


def test_texts_that_are_all_alike_are_one_place(visit: Visit) -> None:
    rows = np.repeat(cloud(1, 16), 4, axis=0)
    assert computed(visit, "maths", "it.plane(it.products(vectors), vectors.length)", rows) == {
        "points": [[0, 0]] * 4,
        "shares": [0, 0],
    }
    one = computed(visit, "maths", "it.plane(it.products(vectors), vectors.length)", rows[:1])
    assert one["points"] == [[0, 0]]


def test_pairs_on_a_line_need_one_axis(visit: Visit) -> None:
    rows = np.outer(np.arange(1, 7), np.array([1.0, 2.0, -1.0])).astype(np.float32)
    found = computed(visit, "maths", "it.plane(it.products(vectors), vectors.length)", rows)
    assert found["shares"] == pytest.approx([1, 0], abs=1e-9)
    assert np.abs(np.array(found["points"])[:, 1]).max() < 1e-4


def test_cosines_are_those_of_numpy_whatever_the_lengths(visit: Visit) -> None:
    rows = cloud(50, 128) * np.linspace(0.1, 9, 50, dtype=np.float32)[:, None]
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = np.array(computed(visit, "maths", "[...it.cosines(it.products(vectors), vectors.length)]", rows)).reshape(50, 50)
    assert np.abs(found - units @ units.T).max() < 1e-5
    pairs = computed(visit, "maths", "it.nearestPairs(it.cosines(it.products(vectors), vectors.length), vectors.length, 3)", rows)
    upper = [(found[i, j], i, j) for i in range(50) for j in range(i + 1, 50)]
    assert [(pair["i"], pair["j"]) for pair in pairs] == [(i, j) for _, i, j in sorted(upper, reverse=True)[:3]]


@pytest.mark.parametrize("n", [1, 2, 3, 40, 200])
def test_an_order_holds_everybody_once_and_keeps_groups_together(visit: Visit, n: int) -> None:
    products = "(await import('/page/maths.js')).products(vectors)"
    order = computed(visit, "order", f"it.alikeTogether({products}, vectors.length)", cloud(n, 64))
    assert sorted(order) == list(range(n))
    groups = [index % 5 for index in order]
    assert sum(a != b for a, b in pairwise(groups)) == min(n, 5) - 1


def test_base64_is_decoded_to_the_very_numbers(visit: Visit) -> None:
    row = np.array([0.1, -2.5e-8, 3.4e38, 0, -0.0], dtype="<f4")
    text = base64.b64encode(row.tobytes()).decode()
    found = visit.page.evaluate("async (text) => [...(await import('/page/api.js')).decoded(text)]", text)
    assert np.array_equal(np.array(found, dtype="<f4"), row)


def test_colours_grow_darker_or_lighter_all_along(visit: Visit) -> None:
    """So that they can be told apart without seeing hues."""
    script = "async (isDark) => (await import('/page/colour.js')).ramp(isDark)"
    for is_dark in (False, True):
        rgb = np.array(visit.page.evaluate(script, is_dark)) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        luminance = linear @ [0.2126, 0.7152, 0.0722]
        steps = np.diff(luminance) * (1 if is_dark else -1)
        assert (steps > -1e-3).all()
        assert abs(luminance[-1] - luminance[0]) > 0.6
