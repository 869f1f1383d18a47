"""A model that torch serves says by what factor that is slower: measured on a layer of its width."""

import json
import re

import pytest

from gateway.engine.torch_slowdown import slowdown_line, widths_of
from gateway.testing.families import SIZES, T5, save_network

LINE = r"a layer of its width takes torch \d+\.\d times as long as compiled in float32"


@pytest.mark.parametrize(
    ("prefix", "settings", "suffix", "expected"),
    [("Bert", SIZES, "Model", (32, 64, 4)), ("T5", T5, "EncoderModel", (32, 64, 4))],
)
def test_the_widths_are_those_of_the_models_configuration(tmp_path, prefix, settings, suffix, expected):
    assert widths_of(save_network(tmp_path, prefix, settings, suffix=suffix)) == expected


def test_heads_that_do_not_divide_the_width_are_replaced(tmp_path):
    folder = save_network(tmp_path, "Qwen3", SIZES | {"head_dim": 8})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_attention_heads": 3}))
    assert widths_of(folder) == (32, 64, 1)


def test_the_line_names_a_measured_factor(tmp_path):
    assert re.fullmatch(LINE, slowdown_line(save_network(tmp_path, "Bert", SIZES), "float32"))


def test_a_model_without_a_network_has_no_line(tmp_path):
    (tmp_path / "modules.json").write_text("[]")
    assert slowdown_line(tmp_path, "float32") == ""
