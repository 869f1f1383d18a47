"""A small model whose network is code of its own, as models of the hub that transformers does not know."""

import json
from pathlib import Path

from gateway.testing.small_model import save_small_model

MODULE = """
from transformers import BertConfig, BertModel

class OwnConfig(BertConfig):
    model_type = "own_bert"

class OwnModel(BertModel):
    config_class = OwnConfig

    def forward(self, *arguments, **options):
        output = super().forward(*arguments, **options)
        output.last_hidden_state = output.last_hidden_state * 2 + 1
        return output
"""
CLASSES = {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}


def save_own_code(folder: Path, more: str = "", **classes: str) -> Path:
    """Saves a BERT that gives other vectors than transformers' own. `more` is code that runs when it is imported."""
    whole = save_small_model(folder)
    config = json.loads((whole / "config.json").read_text())
    mapped = {"model_type": "own_bert", "auto_map": CLASSES | classes}
    (whole / "config.json").write_text(json.dumps(config | mapped))
    (whole / "modeling_own.py").write_text(f"{MODULE}\n{more}\n")
    return whole
