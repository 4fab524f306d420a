"""Real networks of PyTorch and of transformers predict."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelyard_runtime.frames import objects
from modelyard_runtime.models.base import INPUT, ModelError
from modelyard_runtime.models.loading import load

torch = pytest.importorskip("torch")

ROWS = np.random.default_rng(0).normal(size=(4, 3))
CODE = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)
    def forward(self, x):
        return self.linear(x)
"""
HANDLER = """
import torch
class Handler:
    def initialize(self, context):
        folder = context.system_properties["model_dir"]
        self.network = torch.jit.load(f"{folder}/{context.manifest['model']['serializedFile']}")
    def handle(self, data, context):
        with torch.no_grad():
            return self.network(torch.tensor(data, dtype=torch.float32)).tolist()
"""


def _network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2)


def _expected(rows: np.ndarray[Any, Any] = ROWS) -> Any:
    return _network()(torch.tensor(rows, dtype=torch.float32)).detach().numpy()


def _script(folder: Path) -> None:
    torch.jit.script(_network()).save(folder / "model.pt")


def _exported(folder: Path) -> None:
    shapes = ({0: torch.export.Dim("rows", min=1)},)
    exported = torch.export.export(_network(), (torch.ones(2, 3),), dynamic_shapes=shapes)
    torch.export.save(exported, folder / "model.pt2")


def _weights(folder: Path) -> None:
    (folder / "model.py").write_text(CODE)
    torch.save({f"linear.{k}": v for k, v in _network().state_dict().items()}, folder / "w.pth")


def _handler(folder: Path) -> None:
    _script(folder)
    (folder / "handler.py").write_text(HANDLER)


def _archive(folder: Path) -> None:
    """What the model archiver writes of the same files."""
    import subprocess
    import sys

    files = folder / "files"
    files.mkdir()
    _handler(files)
    archiver = Path(sys.executable).with_name("torch-model-archiver")
    subprocess.run(
        [archiver, "--model-name", "m", "--version", "1", "--serialized-file", "model.pt",
         "--handler", "handler.py", "--export-path", folder],
        cwd=files, check=True,
    )  # fmt: skip
    assert zipfile.is_zipfile(folder / "m.mar")


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("save", [_script, _exported, _weights, _handler, _archive])
def test_a_network_predicts(tmp_path: Path, save: Any) -> None:
    save(tmp_path)
    model = load(tmp_path, {})

    for rows in (ROWS, ROWS[:1]):
        found = model.infer({INPUT: rows})["prediction"]
        assert np.allclose(np.asarray(found.tolist()), _expected(rows), atol=1e-6)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_fields_are_a_networks_features(tmp_path: Path) -> None:
    _script(tmp_path)

    found = load(tmp_path, {}).infer({name: ROWS[:, at] for at, name in enumerate("xyz")})

    assert np.allclose(found["prediction"], _expected(), atol=1e-6)


def test_arguments_are_found_by_name_and_outputs_keep_theirs(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, left, right):\n"
        "        return {'sum': left + right, 'difference': left - right}\n"
    )
    torch.save({}, tmp_path / "w.pth")

    found = load(tmp_path, {}).infer({"right": np.ones(2), "left": np.arange(2)})

    assert found["sum"].tolist() == [1, 2]
    assert found["difference"].tolist() == [-1, 0]


def test_a_handler_without_an_entry_is_refused(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("VALUE = 1\n")

    with pytest.raises(ModelError, match=r"handler\.py must have one class with a method handle"):
        load(tmp_path, {})


def _saved(folder: Path, model: Any) -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    special = ["[PAD]", "[UNK]", "[MASK]", "[CLS]", "[SEP]"]
    words = {word: at for at, word in enumerate([*special, "good", "bad"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]",
        cls_token="[CLS]", sep_token="[SEP]", model_max_length=16,
    ).save_pretrained(folder)  # fmt: skip
    model.save_pretrained(folder)
    return load(folder, {})


def _bert(kind: str) -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=16,
    )  # fmt: skip
    return getattr(transformers, kind)(config)


def _gpt() -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=7,
            n_embd=8,
            n_layer=1,
            n_head=2,
            n_positions=64,
            bos_token_id=3,
            eos_token_id=4,
        )
    )


def _t5() -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=7,
            d_model=8,
            d_kv=4,
            d_ff=8,
            num_layers=1,
            num_heads=2,
            decoder_start_token_id=0,
            pad_token_id=0,
            eos_token_id=4,
        )
    )


@pytest.mark.parametrize(
    ("make", "texts", "keys"),
    [
        (lambda: _bert("BertForSequenceClassification"), ["good", "bad bad"], {"label", "score"}),
        (lambda: _bert("BertForTokenClassification"), ["good", "bad bad"], {"entity", "word"}),
        (lambda: _bert("BertForMaskedLM"), ["good [MASK]", "[MASK] bad"], {"token_str", "score"}),
        (_gpt, ["good", "bad bad"], {"generated_text"}),
        (_t5, ["good", "bad bad"], {"generated_text"}),
    ],
    ids=["classification", "tokens", "mask", "generation", "text2text"],
)
def test_the_tasks_of_hugging_face(
    tmp_path: Path, make: Any, texts: list[str], keys: set[str]
) -> None:
    model = _saved(tmp_path, make())

    for inputs in ({INPUT: objects(texts)}, {"id": np.arange(2), "review": objects(texts)}):
        found = model.infer(inputs)["prediction"]
        assert len(found) == 2
        first = found[0][0] if isinstance(found[0], list) else found[0]
        assert keys <= set(first)


def test_rows_without_a_text_are_refused(tmp_path: Path) -> None:
    model = _saved(tmp_path, _bert("BertForSequenceClassification"))

    with pytest.raises(ModelError, match="takes a text for each row"):
        model.infer({"a": np.arange(2)})


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("rows", [ROWS, ROWS.astype(np.float32)], ids=["FP64", "FP32"])
def test_floats_are_of_the_type_of_the_weights(kind: str, rows: Any, tmp_path: Path) -> None:
    weights = getattr(torch, kind)
    torch.jit.script(_network().to(weights)).save(tmp_path / "model.pt")
    found = load(tmp_path, {}).infer({INPUT: rows})["prediction"]
    wanted = _network().to(weights)(torch.tensor(rows).to(weights)).detach()

    assert found.dtype == ("float32" if kind == "bfloat16" else kind)
    assert found.tolist() == wanted.tolist()
