"""Hostile YAMLs are refused before anything in them runs."""

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_vae.allocation_limit import AllocationLimit
from speechbrain_vae.safe_yaml import (
    DamagedYAMLError,
    UnsafeYAMLError,
    load_model_yaml,
    model_class,
)

HOSTILE = {
    "apply": "a: !apply:os.system [touch {marker}]",
    "new": "a: !new:subprocess.Popen [[touch, {marker}]]",
    "name": "a: !new:torch.nn.Sequential [!name:os.system [touch {marker}]]",
    "module": "a: !module:antigravity",
    "include": "a: !include:/etc/passwd",
    "applyref": "a: !applyref:os.system [touch {marker}]",
    "in a list of lists": "a: [[1, [!apply:os.system [touch {marker}]]]]",
    "as a key": "? !apply:os.system [touch {marker}]\n: 1",
    "under a private key": "__a: !apply:os.system [touch {marker}]",
    "behind an anchor": "a: &x\n  - !apply:os.system [touch {marker}]\nb: *x",
    "in a merge": "a: &x {{c: !apply:os.system [touch {marker}]}}\nb:\n  <<: *x",
    "as an argument": (
        "a: !new:speechbrain_vae.lobes.encoders.ConvEncoder\n"
        "  blocks: 1\n  activation: !name:os.getcwd"
    ),
    "as an argument of an argument": (
        "a: !new:speechbrain_vae.lobes.encoders.RecurrentEncoder\n"
        "  cell: !name:functools.partial [!name:os.system, touch {marker}]"
    ),
    "python tag": "a: !!python/object/apply:os.system [touch {marker}]",
    "long python tag": (
        "a: !<tag:yaml.org,2002:python/object/apply:os.system> [touch {marker}]"
    ),
    "tag shortcut": (
        "%TAG !p! tag:yaml.org,2002:python/\n---\n"
        "a: !p!object/apply:os.system [touch {marker}]"
    ),
    "in a tuple": "a: (!!python/object/apply:os.system [touch {marker}],)",
    "in a quoted tuple": "a: !tuple '(!!python/object/apply:os.system [touch x],)'",
    "in an attribute of a reference": "a: {{b: 1}}\nc: !ref <a.__class__>",
    "in arithmetic": "a: 9\nb: !ref <a>**<a>**<a>",
    "copy": "a: 9\nb: !copy <a>",
    "attribute of a module": "a: !name:torch.nn.functional.torch.hub.load",
    "function of a package": "a: !name:speechbrain_vae.lobes.frozen.read_export",
    "import of a package": "a: !new:speechbrain_vae.lobes.features.Fbank.__init__",
    "another export": "a: !new:speechbrain_vae.lobes.frozen.FrozenEncoder [evil/x]",
    "not a module": "a: !new:torch.nn.Parameter",
    "dots": "a: !new:torch.nn..GELU",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tags_are_refused_and_do_not_run(name, tmp_path):
    marker = tmp_path / "executed"
    with pytest.raises(UnsafeYAMLError):
        load_model_yaml(HOSTILE[name].format(marker=marker))
    assert not marker.exists()


@pytest.mark.parametrize("name", ["apply", "new", "behind an anchor", "in a tuple"])
def test_hyperpyyaml_itself_runs_them(name, tmp_path):
    marker = tmp_path / "executed"
    hparams = load_hyperpyyaml(HOSTILE[name].format(marker=marker))
    if name == "new":
        hparams["a"].wait()
    assert marker.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: [!apply:os.system [ls]]", ["line 2", "!apply:os.system"]),
        ("a: !new:subprocess.Popen [ls]", ["!new:subprocess.Popen", "none of the"]),
        ("a: !!python/name:os.system", ["!!python/name:os.system"]),
        ("a: &x {b: 1}\nc: {<<: *x}", ["line 2", "!!merge"]),
        ("a: !new:torch.nn.Gelu", ["torch.nn.Gelu does not exist", "pip install -U"]),
        ("a: !PLACEHOLDER", ["!PLACEHOLDER"]),
    ],
)
def test_the_refusal_names_the_tag_and_its_line(text, words):
    with pytest.raises(UnsafeYAMLError) as error:
        load_model_yaml(text)
    assert all(word in str(error.value) for word in words), error.value


def test_nothing_is_built_before_the_last_tag_was_checked(monkeypatch):
    built = []
    monkeypatch.setattr(torch.nn.GELU, "__init__", lambda self: built.append(self))
    with pytest.raises(UnsafeYAMLError):
        load_model_yaml("a: !new:torch.nn.GELU\nb: !apply:os.getcwd []")
    assert not built


def test_documents_that_grow_are_refused():
    # Expanded, these would never end.
    for first, tag in (
        ("[1]", ""),
        ("!new:torch.nn.GELU", "!new:torch.nn.ModuleList "),
    ):
        levels = [f"a{n}: &a{n} {tag}[[*a{n - 1}, *a{n - 1}]]" for n in range(1, 40)]
        with pytest.raises(UnsafeYAMLError, match="line 1[0-9]: .* than 20000 values"):
            load_model_yaml("\n".join([f"a0: &a0 {first}", *levels]))
    texts = f"a: &a {'x' * 50_000}\nb: &b [{'*a, ' * 30}]\nc: [{'*b, ' * 40}]"
    with pytest.raises(UnsafeYAMLError, match="line 3: .* than 20000 values"):
        load_model_yaml(texts)
    with pytest.raises(UnsafeYAMLError, match="line 1: a number of more than 1000 dig"):
        load_model_yaml("a: 0x" + "f" * 9000)
    with pytest.raises(UnsafeYAMLError, match="contains itself"):
        load_model_yaml("a: &a [*a]")
    with pytest.raises(UnsafeYAMLError, match="levels"):
        load_model_yaml("a: " + "[" * 60 + "]" * 60)


def test_a_long_document_is_refused_before_it_is_composed(monkeypatch):
    monkeypatch.setattr("speechbrain_vae.safe_yaml.YAML", None)
    with pytest.raises(UnsafeYAMLError, match="more than 65536 characters"):
        load_model_yaml("a: [" + "[]," * 30_000 + "]")


@pytest.mark.parametrize(
    "module",
    [
        # Of torch.FloatTensor, torch.Tensor and NumPy.
        "nnet.quantisers.GumbelVectorQuantizer [8, 1000, [2, 1, 0.9], 1, 800]",
        "nnet.complex_networks.c_linear.CLinear [800, [1, 800]]",
    ],
)
def test_tensors_that_no_function_of_torch_made_count(module, monkeypatch):
    text = f"a: !new:speechbrain.{module}"
    with pytest.raises(UnsafeYAMLError, match="none of the model classes"):
        load_model_yaml(text)
    monkeypatch.setattr("speechbrain_vae.safe_yaml.EXCLUDED", ())
    assert load_model_yaml(text, AllocationLimit(10**7))
    with pytest.raises(MemoryError, match="takes more than the 2 MB"):
        load_model_yaml(text, AllocationLimit(2 * 10**6))


def test_modules_count_together_and_what_they_share_once():
    layers = "\n".join(f"l{n}: !new:torch.nn.Linear [500, 500]" for n in range(3))
    limit = AllocationLimit(2 * 10**6)
    for module in [torch.nn.Linear(500, 500)] * 3:
        limit.count(module)
    with pytest.raises(MemoryError):
        load_model_yaml(layers, AllocationLimit(2 * 10**6))
    with pytest.raises(MemoryError):
        limit.count(torch.nn.Linear(500, 500))


def test_what_models_need_is_built():
    hparams = load_model_yaml(
        """
size: 3
layer: &layer !new:torch.nn.Linear
    in_features: 3
    out_features: 2
same: *layer
also: !ref <layer>
shape: (3, 4)
one: !tuple (5)
cell: !name:torch.nn.GRU
start: !name:torch.nn.GELU {approximate: tanh}
stack: !new:torch.nn.Sequential [!ref <layer>, !new:torch.nn.GELU ]
"""
    )
    assert hparams["same"] is hparams["also"] is hparams["layer"]
    assert hparams["stack"][0] is hparams["layer"]
    assert hparams["shape"] == (3, 4) and hparams["one"] == (5,)
    assert hparams["cell"] is torch.nn.GRU
    assert hparams["start"]().approximate == "tanh"


@pytest.mark.parametrize("text", ["", "- a", "a: [", "\x00", "a: 1\n---\nb: 2"])
def test_what_is_no_yaml_of_a_model_is_refused(text):
    with pytest.raises(DamagedYAMLError):
        load_model_yaml(text)


@pytest.mark.parametrize(
    "text", ["%TAG ! tag:x,2000:\n---\na: 1", "%YAML 1.1\n---\na: 1"]
)
def test_directives_are_refused_by_name(text):
    with pytest.raises(UnsafeYAMLError, match="line 1: the directive %(TAG|YAML) "):
        load_model_yaml(text)


def test_a_refusal_cannot_write_to_the_terminal():
    with pytest.raises(UnsafeYAMLError) as error:
        load_model_yaml('a: !ref "<\\e[2Jfine\\u202e>"')
    assert str(error.value).isprintable()


def test_a_class_counts_by_where_it_is_defined():
    assert model_class("speechbrain_vae.lobes.bottlenecks.GaussianBottleneck")
    with pytest.raises(UnsafeYAMLError, match="none of the model classes"):
        model_class("speechbrain_vae.lobes.front_ends.FrontEnd")
