"""A model's kind is told from its files alone. What is not served is refused in one line that says what it is."""

import json
import shutil
import subprocess
import sys
import textwrap

import pytest
import structlog
import torch
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from gateway.engine.kind import kind_of
from gateway.engine.model_folder import tensor_names
from gateway.errors import OperatorError
from gateway.testing import model_folders as folders
from gateway.tests.engine.conftest import embedded, local_of


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return folders.base("bert-cls-dense", tmp_path_factory.mktemp("whole"))


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """A folder of each kind, as sentence-transformers and transformers save it."""
    under, fast = tmp_path_factory.mktemp("kinds"), folders.tokenizer()
    config = {"vocab_size": len(fast), "max_position_embeddings": 64, **folders.SIZES}
    BertForSequenceClassification(BertConfig(**config, num_labels=1)).save_pretrained(under / "classifier")
    BertForMaskedLM(BertConfig(**config)).save_pretrained(under / "masked-lm")
    BertForSequenceClassification(BertConfig(**config, num_labels=3)).save_pretrained(under / "labels")
    for name in ("classifier", "masked-lm", "labels"):
        fast.save_pretrained(under / name)
    CrossEncoder(str(under / "classifier"), device="cpu").save_pretrained(str(under / "reranker"))
    SparseEncoder(str(under / "masked-lm"), device="cpu").save_pretrained(str(under / "splade"))
    MultiVectorEncoder(str(under / "masked-lm"), device="cpu").save_pretrained(str(under / "colbert"))
    return under


def refusal(folder):
    with pytest.raises(OperatorError) as caught:
        kind_of(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_code_for_older_releases_is_passed_over_where_transformers_has_the_network(copy):
    """Its configuration must be in transformers' own words: others would silently become its defaults."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    (copy / "config.json").write_text(json.dumps({"model_type": "eurobert", "auto_map": {"AutoModel": "own.Own"}} | sizes))
    assert kind_of(copy) == "embedder"
    for other in (
        {"model_type": "own"} | sizes,
        {"model_type": "nomic_bert", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48},
    ):
        (copy / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "own.Own"}} | other))
        assert "AutoModel under auto_map" in refusal(copy)


WORDS = {"labels": "classifier with 3 labels", "colbert": "multi-vector encoder"}


@pytest.mark.parametrize("name", WORDS)
def test_another_kind_is_said_and_what_to_do(name, kinds):
    said = refusal(kinds / name)
    assert WORDS[name] in said
    assert "name an embedding model" in said


@pytest.mark.parametrize("name", ["classifier", "reranker"])
def test_a_reranker_is_told_whoever_saved_it(name, kinds):
    assert kind_of(kinds / name) == "reranker"


def test_a_sparse_encoder_is_told(kinds):
    assert kind_of(kinds / "splade") == "sparse_encoder"


@pytest.mark.parametrize("name", ["splade", "colbert"])
@pytest.mark.parametrize("lost", ["config_sentence_transformers.json", "model_type"])
def test_it_is_known_by_its_modules_too(name, lost, kinds, tmp_path):
    folder = shutil.copytree(kinds / name, tmp_path / "model")
    file = folder / "config_sentence_transformers.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in content.items() if key != "model_type"}))
    if lost == file.name:
        file.unlink()
    if name == "splade":
        assert kind_of(folder) == "sparse_encoder"
    else:
        assert WORDS[name] in refusal(folder)


@pytest.mark.parametrize("lost", ["config_sentence_transformers.json", "model_type"])
def test_a_reranker_is_known_by_its_task_or_its_head(lost, kinds, tmp_path):
    folder = shutil.copytree(kinds / "reranker", tmp_path / "model")
    file = folder / "config_sentence_transformers.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in content.items() if key != "model_type"}))
    if lost == file.name:
        file.unlink()
    assert kind_of(folder) == "reranker"


SPOILT = {
    "a classifier": (lambda folder: folders.edit(folder / "config.json", id2label={"0": "a", "1": "b"}), "with 2 labels"),
    "labels unsaid": (lambda folder: folders.edit(folder / "config.json", id2label=None), "classifier with 2 labels"),
    "code of its own": (
        lambda folder: folders.edit(folder / "config.json", auto_map={"AutoModel": "modeling.Own"}), "AutoModel under auto_map",
    ),
    "a module of its own": (lambda folder: modules(folder, TRANSFORMER, "custom_st.Score"), "names custom_st.Score"),
    "routes": (lambda folder: modules(folder, "sentence_transformers.models.Router"), "sentence_transformers.models.Router"),
    "images": (
        lambda folder: folders.edit(folder / "sentence_bert_config.json", modality_config={"text": {}, "image": {}}), "image",
    ),
    "another task": (
        lambda folder: folders.edit(folder / "sentence_bert_config.json", transformer_task="fill-mask"), "of another task",
    ),
    "quantised": (lambda folder: folders.edit(folder / "config.json", quantization_config={"a": "gptq"}), "quantised"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "words"), SPOILT.values(), ids=SPOILT)
def test_a_reranker_that_cannot_be_served_is_refused_by_its_reason(make, words, kinds, tmp_path):
    folder = shutil.copytree(kinds / "reranker", tmp_path / "model")
    make(folder)
    assert words in refusal(folder)


def pylate(folder, **config):
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config))


def modules(folder, *types):
    named = [{"idx": n, "name": str(n), "path": "" if n == 0 else f"{n}_", "type": each} for n, each in enumerate(types)]
    (folder / "modules.json").write_text(json.dumps(named))


MODELS = "sentence_transformers.models"
TRANSFORMER = f"{MODELS}.Transformer"
OTHERS = {
    "PyLate": (lambda folder: pylate(folder, model_type="ColBERT"), "multi-vector"),
    "PyLate of old": (lambda folder: pylate(folder, query_prefix="[Q] ", query_length=32), "multi-vector"),
    "PyLate's Dense": (lambda folder: modules(folder, TRANSFORMER, "pylate.models.Dense.Dense"), "multi-vector"),
    "a type of tomorrow": (lambda folder: pylate(folder, model_type="Oracle"), "Oracle"),
    "a type of nothing": (lambda folder: pylate(folder, model_type=None), "another kind"),
    "SPLADE that pools no logits": (
        lambda folder: modules(folder, TRANSFORMER, "sentence_transformers.sparse_encoder.modules.SpladePooling"),
        "where a masked-LM head's logits belong",
    ),
    "SPLADE with more behind it": (
        lambda folder: modules(folder, TRANSFORMER, f"{MODELS}.SpladePooling", f"{MODELS}.Normalize"),
        "only SPLADE is",
    ),
    "CSR": (lambda folder: modules(folder, TRANSFORMER, "sentence_transformers.models.SparseAutoEncoder"), "only SPLADE is"),
    "queries without inference": (
        lambda folder: modules(folder, "sentence_transformers.models.Router", "sentence_transformers.models.SpladePooling"),
        "without inference for queries",
    ),
    "CLIP": (lambda folder: modules(folder, "sentence_transformers.models.CLIPModel"), "images or sound"),
    "no pooling": (lambda folder: modules(folder, TRANSFORMER), "without a module that makes one vector"),
    "a module of its own": (lambda folder: modules(folder, TRANSFORMER, "custom_st.MyPooling"), "names custom_st.MyPooling"),
    "code of its own": (
        lambda folder: folders.edit(folder / "config.json", auto_map={"AutoModel": "modeling.Own"}), "AutoModel under auto_map",
    ),
    "a tokenizer's code": (
        lambda folder: folders.edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own", None]}),
        "tokenizer_config.json names AutoTokenizer",
    ),
    "an activation of its own": (
        lambda folder: folders.edit(folder / "2_Dense" / "config.json", activation_function="own.Swish"), "own.Swish",
    ),
    "an adapter": (lambda folder: (folder / "adapter_config.json").write_text("{}"), "adapter over another model"),
    "quantised": (
        lambda folder: folders.edit(folder / "config.json", quantization_config={"quant_method": "gptq"}), "quantised",
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer"),
    "a head": (
        lambda folder: folders.edit(folder / "sentence_bert_config.json", transformer_task="text-generation"), "of another task",
    ),
    "images too": (
        lambda folder: folders.edit(folder / "sentence_bert_config.json", modality_config={"text": {}, "image": {}}), "image",
    ),
    "a chat model": (
        lambda folder: folders.edit(folder / "sentence_bert_config.json", modality_config={"text": {}, "message": {}}), "chat",
    ),
    "options that are not followed": (
        lambda folder: folders.edit(folder / "sentence_bert_config.json", processing_kwargs={"text": {"max_length": 3}}),
        "processing_kwargs",
    ),
    "another's tokenizer": (
        lambda folder: folders.edit(folder / "sentence_bert_config.json", tokenizer_name_or_path="a/b"), "tokenizer_name_or_path",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "words"), OTHERS.values(), ids=OTHERS)
def test_each_is_told_by_its_marks(make, words, copy):
    make(copy)
    assert words in refusal(copy)


BARE = {
    "Stanford's ColBERT": ({"architectures": ["HF_ColBERT"]}, "multi-vector"),
    "ColPali": ({"architectures": ["ColPaliForRetrieval"]}, "multi-vector"),
}


@pytest.mark.parametrize(("fields", "words"), BARE.values(), ids=BARE)
def test_a_folder_without_modules_is_told_by_sentence_transformers_own_marks(fields, words, whole, tmp_path):
    folder = folders.bare(whole, tmp_path / "bare")
    folders.edit(folder / "config.json", **fields)
    assert words in refusal(folder)


OF_OLD = {
    "old": {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
    "4": {"sentence_transformers": {"activation_fn": "torch.nn.Sigmoid", "version": "4.0.1"}},
}


@pytest.mark.parametrize("fields", OF_OLD.values(), ids=OF_OLD)
def test_a_reranker_without_modules_is_told_by_its_activation(fields, whole, tmp_path):
    folder = folders.bare(whole, tmp_path / "bare")
    folders.edit(folder / "config.json", id2label={"0": "LABEL_0"}, **fields)
    assert kind_of(folder) == "reranker"
    folders.edit(folder / "config.json", id2label={"0": "no", "1": "yes"})
    assert "classifier with 2 labels" in refusal(folder)


@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "BertForSequenceClassification", "BertForCausalLM", "BertModel", "X"])
@pytest.mark.parametrize("is_bare", [False, True])
def test_architectures_alone_say_nothing(architecture, is_bare, whole, tmp_path):
    folder = folders.bare(whole, tmp_path / "model") if is_bare else shutil.copytree(whole, tmp_path / "model")
    folders.edit(folder / "config.json", architectures=[architecture])
    kind_of(folder)


@pytest.mark.parametrize(
    ("card", "is_refused"),
    [
        ("---\nlicense: apache-2.0\npipeline_tag: text-ranking\n---\n# A reranker\n", True),
        ("---\npipeline_tag: 'text-ranking'\n---\n", True),
        ("---\npipeline_tag: feature-extraction\n---\nIt goes well with a model of pipeline_tag: text-ranking\n", False),
        ("pipeline_tag: text-ranking", False),
        ("", False),
    ],
)
def test_a_reranker_saved_as_a_network_alone_is_not_served_as_an_embedder(card, is_refused, copy):
    (copy / "modules.json").unlink()
    (copy / "README.md").write_text(card)
    if is_refused:
        assert "text-ranking" in refusal(copy)
    else:
        assert kind_of(copy) == "embedder"


def test_a_masked_lm_without_modules_is_an_ordinary_bert(kinds):
    kind_of(kinds / "masked-lm")


def test_a_classifiers_head_is_seen_in_a_pickle_and_behind_an_index(kinds, tmp_path):
    folder = shutil.copytree(kinds / "classifier", tmp_path / "model")
    [weights] = folder.glob("model.safetensors")
    network = BertForSequenceClassification.from_pretrained(folder)
    weights.unlink()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    assert "classifier.weight" in tensor_names(folder / "pytorch_model.bin")
    assert kind_of(folder) == "reranker"
    (folder / "pytorch_model.bin").unlink()
    network.save_pretrained(folder, max_shard_size="20KB")
    assert not weights.exists()
    assert kind_of(folder) == "reranker"


TOLD = """
    import sys
    from pathlib import Path
    from gateway.engine.kind import kind_of
    from gateway.errors import OperatorError
    for folder in sys.argv[1:]:
        try:
            kind_of(Path(folder))
        except OperatorError as error:
            print(error)
    print("torch" in sys.modules, "transformers" in sys.modules)
"""


def test_no_torch_is_needed_to_tell(kinds):
    code = textwrap.dedent(TOLD)
    command = [sys.executable, "-c", code, *(str(kinds / name) for name in WORDS)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = ended.stdout.splitlines()
    assert len(lines) == len(WORDS) + 1
    assert lines[-1] == "False False"


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
async def test_a_bare_folder_is_pooled_as_sentence_transformers_does_and_said(runtime, whole, tmp_path):
    folder = folders.bare(whole, tmp_path / "bare")
    local = local_of(folder, runtime=runtime, precision="float32", data_dir=tmp_path / "data")
    with structlog.testing.capture_logs() as logs:
        await local.start()
    rows, _ = await embedded(local, "the red server", normalize=False)
    await local.close()
    expected = SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(["the red server"])
    assert abs(rows - expected).max() < 1e-5
    [warning] = [each for each in logs if each["event"] == "no_modules_json"]
    assert "mean pooling" in warning["hint"]
