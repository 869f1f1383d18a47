"""Small rerankers (CrossEncoder) of many architectures with random weights, and one of MiniLM's full size. Imports no pytest.

The head of a random network gives every pair nearly the same logit, so that a wrong network would pass. Here it is scaled until
the logits of the probe pairs spread around 0.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.modules import LogitScore, Transformer
from tokenizers import Tokenizer, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from gateway.engine.fidelity import PROBES
from gateway.testing.architectures import COMMON, DISTIL, GROUPED, HIDDEN, MAX_TOKENS, MODERN, scale_weights, trained

SPREAD = 3.0  # the standard deviation of the probe pairs' logits
PAIRS = [(PROBES[number], PROBES[(number * 7 + 3) % len(PROBES)]) for number in range(len(PROBES))]
DEBERTA = {"type_vocab_size": 0, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "pooler_hidden_size": HIDDEN}
# For each kind: the name of its classes in transformers, the settings, and the form of its pairs.
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "bert": ("Bert", COMMON, "types"),
    "electra": ("Electra", COMMON | {"embedding_size": 32}, "types"),
    "distilbert": ("DistilBert", DISTIL, "plain"),
    "roberta": ("Roberta", COMMON | {"type_vocab_size": 1}, "doubled"),
    "xlm-r": ("XLMRoberta", COMMON | {"type_vocab_size": 1}, "doubled"),
    "deberta": ("DebertaV2", COMMON | DEBERTA, "types"),
    "modernbert": ("ModernBert", COMMON | MODERN, "plain"),
}
CAUSAL_TOKENS = 320  # the template takes 90
CAUSAL = COMMON | GROUPED | {"tie_word_embeddings": True, "max_position_embeddings": CAUSAL_TOKENS}
KINDS["qwen3"] = ("Qwen3", CAUSAL, "none")
# As Qwen3-Reranker's: the instruction is the system's message, and has a default.
TEMPLATE = (
    "{%- set found = messages | selectattr('role', 'eq', 'system') | map(attribute='content') | list -%}"
    "{%- set task = found[0] if found else 'Find passages that answer the query' -%}"
    "[CLS]Judge the document by the query. Answer yes or no.[SEP]\n[CLS]<Instruct>: {{ task }}\n"
    "<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "<Document>: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}[SEP]\n[CLS]\n\n"
)


def tokenizer_of(form: str, *, max_tokens: int = MAX_TOKENS) -> PreTrainedTokenizerFast:
    """A small tokenizer that joins pairs as BERT does ("types"), without token types ("plain"), or as RoBERTa does ("doubled")."""
    fast = trained("bpe", special=False)
    templates = {
        "types": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
        "plain": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
        "doubled": ("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B [SEP]"),
    }
    if form in templates:
        single, pair = templates[form]
        ids = [(token, fast.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        fast.post_processor = processors.TemplateProcessing(single, pair, special_tokens=ids)
    names = ["input_ids", *(["token_type_ids"] if form == "types" else []), "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, model_max_length=max_tokens, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_input_names=names,
    )  # fmt: skip


def reranker_of(
    kind: str,
    folder: Path,
    *,
    spoil: Callable[[torch.nn.Module], None] | None = None,
    scale: float = 4,
    spread: float = SPREAD,
    dtype: torch.dtype = torch.float32,
    **whole: Any,
) -> Path:
    """Saves a reranker of one of KINDS; returns its folder. Weights are scaled up, so that layers matter; `spoil` changes them."""
    name, settings, form = KINDS[kind]
    tokenizer = tokenizer_of(form)
    config = getattr(transformers, f"{name}Config")(vocab_size=len(tokenizer), num_labels=1, **settings)
    torch.manual_seed(5)
    network = getattr(transformers, f"{name}ForSequenceClassification")(config)
    scale_weights(network, scale)
    return save(network, tokenizer, folder, spoil=spoil, spread=spread, dtype=dtype, **whole)


def save(
    network: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    spoil: Callable[[torch.nn.Module], None] | None = None,
    spread: float = SPREAD,
    dtype: torch.dtype = torch.float32,
    **whole: Any,
) -> Path:
    """Saves a network with a classifier's head of one label as CrossEncoder does, its logits spread around 0."""
    raw = folder / "raw"
    network.eval().save_pretrained(raw)
    tokenizer.save_pretrained(raw)
    model = CrossEncoder(str(raw), device="cpu", **whole)
    head = [module for module in model.model.modules() if isinstance(module, torch.nn.Linear) and module.out_features == 1][-1]
    with torch.no_grad():
        logits = logits_of(model, PAIRS)
        head.weight.mul_(spread / logits.std())
        if head.bias is not None:
            head.bias.mul_(spread / logits.std()).sub_(spread * logits.mean() / logits.std())
        if spoil:
            spoil(model.model)
    model.model.to(dtype)
    model.save(str(folder / "whole"), create_model_card=False)
    return folder / "whole"


def logits_of(model: CrossEncoder, pairs: list[tuple[str, str]], **more: Any) -> torch.Tensor:
    """The logits of `CrossEncoder.predict`, shape (n,), each pair alone."""
    rows = [model.predict([pair], activation_fn=torch.nn.Identity(), convert_to_tensor=True, **more) for pair in pairs]
    return torch.cat(rows).float()


def causal_reranker_of(folder: Path, *, template: str | None = TEMPLATE, spread: float = SPREAD, **whole: Any) -> Path:
    """Saves a causal language model whose score is its logit of "yes" less that of "no", as Qwen3-Reranker's.

    With a `template` a pair is a chat message, without one its texts are joined by the tokenizer alone.
    """
    tokenizer = tokenizer_of("none", max_tokens=CAUSAL_TOKENS)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_tokens(["yes", "no"])
    tokenizer.chat_template = template
    torch.manual_seed(5)
    settings = transformers.Qwen3Config(vocab_size=len(tokenizer), **CAUSAL)
    network = transformers.Qwen3ForCausalLM(settings).eval()
    scale_weights(network, 4)
    raw = folder / "raw"
    network.save_pretrained(raw)
    tokenizer.save_pretrained(raw)
    transformer = Transformer(str(raw), transformer_task="text-generation")
    yes, no = (tokenizer.convert_tokens_to_ids(each) for each in ("yes", "no"))
    model = CrossEncoder(modules=[transformer, LogitScore(yes, no)], device="cpu", **whole)
    with torch.no_grad():
        logits = logits_of(model, PAIRS)
        model.model.get_output_embeddings().weight[[yes, no]] *= spread / logits.std()
    model.save(str(folder / "whole"), create_model_card=False)
    return folder / "whole"


# As they are made, random weights give nearly one vector for all pairs: a head that spreads its logits to 3 also spreads bfloat16's
# rounding to 0.16 of a score, with four times the weights and a third of the spread to 0.022. Trained weights tell more apart.
MINILM_SCALE, MINILM_SPREAD = 4, 1.0
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}


def minilm_reranker(folder: Path, tokenizer_json: Path) -> Path:
    """Saves a reranker with random weights and the size of cross-encoder/ms-marco-MiniLM-L6-v2: 22.7 million, 512 tokens.

    `tokenizer_json` is BERT's own tokenizer, such as that of all-MiniLM-L6-v2.
    """
    fast = Tokenizer.from_file(str(tokenizer_json))
    fast.no_truncation()
    fast.no_padding()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast, model_max_length=512, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip
    config = transformers.BertConfig(vocab_size=fast.get_vocab_size(), num_labels=1, **MINILM)
    torch.manual_seed(5)
    network = transformers.BertForSequenceClassification(config)
    scale_weights(network, MINILM_SCALE)
    return save(network, tokenizer, folder, spread=MINILM_SPREAD)
