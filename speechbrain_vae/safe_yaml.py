"""HyperPyYAML of somebody else, loaded without running what it names.

HyperPyYAML calls whatever a tag names: ``!apply:os.system`` is a shell. Here a
document is read as plain YAML, every node is checked, and the objects are built from
the very nodes that were checked, of model classes alone: PyTorch modules that are
defined in this package, in SpeechBrain's layers and in ``torch.nn``.
"""

import ast
import contextlib
import functools
import importlib
import re

import torch
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from speechbrain_vae.allocation_limit import AllocationLimit
from speechbrain_vae.dataio.manifests import printable

PACKAGES = (
    "speechbrain_vae.lobes",
    "speechbrain_vae.nnet",
    "speechbrain.nnet",
    "speechbrain.lobes.features",
    "speechbrain.augment.freq_domain",
    "torch.nn",
)
"""Where model classes may be defined."""

EXCLUDED = (
    "speechbrain_vae.lobes.frozen",
    "speechbrain_vae.lobes.front_ends",
    "speechbrain_vae.lobes.pooled",
    "torch.nn.parallel",
    "torch.nn.modules.transformer",
    "speechbrain.lobes.features.Leaf",
    "speechbrain.lobes.features.MFCC",
    "speechbrain.nnet.attention.PrecomputedRoPESinusoids",
    "speechbrain.nnet.complex_networks",
    "speechbrain.nnet.quantisers",
    "speechbrain.nnet.quaternion_networks",
)
"""Modules and classes of these packages that are no parts of a model: they read other
exports, need other processes, or take memory or time before it can be refused."""

PRETRAINERS = (
    "speechbrain_vae.weights.SafetensorsPretrainer",
    "speechbrain.utils.parameter_transfer.Pretrainer",
)

MAX_SIZE = 64 * 1024
"""Characters of a document; a model takes about 1,500."""

MAX_NODES = 20_000
"""Values of a document, those of an alias counted wherever it stands; a hundred
characters count as one more."""

MAX_DEPTH = 50
MAX_DIGITS = 1000

_PLAIN = {
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "int", "float", "bool", "null", "seq", "map")
}
_REFERENCE = re.compile(r"<(\w+)>")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_TUPLE = re.compile(r"\(.*\)")


class UnsafeYAMLError(ValueError):
    """A document asks for something that a model does not need; it was not loaded."""


class DamagedYAMLError(ValueError):
    """A document is no YAML of a model at all."""


def load_model_yaml(text: str, limit: AllocationLimit | None = None) -> dict:
    """Build what a YAML describes, if it describes models alone.

    ``!new:`` and ``!name:`` take classes of :data:`PACKAGES`, ``!ref <key>`` a key of
    the document, ``(1, 2)`` and ``!tuple`` are tuples; every other tag is refused.

    Arguments
    ---------
    text : str
        HyperPyYAML.
    limit : AllocationLimit, optional
        Of the memory that the modules take.

    Returns
    -------
    dict

    Raises
    ------
    DamagedYAMLError
        It is no YAML, or no mapping.
    UnsafeYAMLError
        Naming the tag and its line. Nothing was built.
    MemoryError
        The modules take more than the limit.

    Example
    -------
    >>> load_model_yaml("size: 3\\nlayer: !new:torch.nn.Linear [3, 2]")
    {'size': 3, 'layer': Linear(in_features=3, out_features=2, bias=True)}
    >>> load_model_yaml("size: !apply:os.system [ls]")
    Traceback (most recent call last):
      ...
    speechbrain_vae.safe_yaml.UnsafeYAMLError: line 1: the tag !apply:os.system ...
    """
    if len(text) > MAX_SIZE:
        raise UnsafeYAMLError(f"it has more than {MAX_SIZE} characters")
    # They could give another meaning to every tag.
    directive = re.search(r"^%.*", text, re.MULTILINE)
    if directive:
        line = text.count("\n", 0, directive.start()) + 1
        raise UnsafeYAMLError(
            f"line {line}: the directive {printable(directive[0][:80])} is refused"
        )
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _ModelConstructor
    try:
        constructor, _ = yaml.get_constructor_parser(text)
        root = constructor.composer.get_single_node()
    except RecursionError:
        raise UnsafeYAMLError(
            f"its lists and mappings are nested deeper than {MAX_DEPTH} levels"
        ) from None
    # A parser that others feed may fail in any way.
    except Exception as error:
        reason = printable(" ".join(str(error).split())[:300])
        raise DamagedYAMLError(f"it is not YAML: {reason}") from error
    if not isinstance(root, MappingNode):
        raise DamagedYAMLError("it is not a mapping from names to values")
    _Check(root)
    constructor.limit = limit
    with limit or contextlib.nullcontext():
        return constructor.construct_document(root)


def model_class(name: str) -> type:
    """The class that a tag may name.

    Arguments
    ---------
    name : str
        Dotted name of module and class.

    Returns
    -------
    type

    Raises
    ------
    UnsafeYAMLError
        There is no such class, or it is none of a model's.

    Example
    -------
    >>> model_class("torch.nn.GELU")
    <class 'torch.nn.modules.activation.GELU'>
    """
    module, _, leaf = name.rpartition(".")
    if _DOTTED.fullmatch(name) and (name in PRETRAINERS or _inside(module, PACKAGES)):
        # As a module and an entry of it: attributes of attributes reach everything,
        # torch.nn.functional.torch.hub among it.
        try:
            found = vars(importlib.import_module(module)).get(leaf)
        except ImportError:
            found = None
        if found is None:
            raise UnsafeYAMLError(
                f"{name} does not exist here; a newer version may have it: "
                "pip install -U speechbrain-vae"
            )
        if name in PRETRAINERS or _is_part(found):
            return found
    raise UnsafeYAMLError(
        f"{name} is none of the model classes of speechbrain_vae, speechbrain and torch"
    )


def _is_part(found):
    return (
        isinstance(found, type)
        and issubclass(found, torch.nn.Module)
        and _inside(found.__module__, PACKAGES)
        and not _inside(f"{found.__module__}.{found.__qualname__}", EXCLUDED)
    )


def _inside(module, packages):
    return any(module == p or module.startswith(f"{p}.") for p in packages)


class _Check:
    """Visits every node once, and puts what a ``!ref`` names in its place."""

    def __init__(self, root):
        self.keys = {
            key.value: value for key, value in root.value if isinstance(key, ScalarNode)
        }
        self.sizes = {}
        self.open = set()
        self.visit(root)

    def visit(self, node, depth=0):
        """The node to use instead of this one."""
        if isinstance(node, ScalarNode) and _tag(node) == "!ref":
            return self.visit(self.target(node), depth)
        if id(node) in self.open:
            raise self.refusal(node, "an alias that contains itself")
        if id(node) in self.sizes:
            return node
        if depth > MAX_DEPTH:
            raise self.refusal(node, f"what has more than {MAX_DEPTH} levels")
        self.check_tag(node)
        self.open.add(id(node))
        if isinstance(node, ScalarNode):
            size = 1 + len(node.value) // 100
        elif isinstance(node, MappingNode):
            node.value = [
                (self.visit(key, depth + 1), self.visit(value, depth + 1))
                for key, value in node.value
            ]
            size = 1 + sum(self.sizes[id(part)] for pair in node.value for part in pair)
        else:
            node.value = [self.visit(item, depth + 1) for item in node.value]
            size = 1 + sum(self.sizes[id(item)] for item in node.value)
        if size > MAX_NODES:
            raise self.refusal(node, f"what has more than {MAX_NODES} values")
        self.sizes[id(node)] = size
        self.open.discard(id(node))
        return node

    def target(self, node):
        match = _REFERENCE.fullmatch(node.value.strip())
        if not match or match[1] not in self.keys:
            raise self.refusal(
                node, f"!ref {node.value}", "only !ref <key>, a key of the same file"
            )
        target = self.keys[match[1]]
        if _tag(target) == "!ref":
            raise self.refusal(node, f"!ref {node.value}", "no reference to another")
        return target

    def check_tag(self, node):
        tag = _tag(node)
        if isinstance(node, ScalarNode):
            implicit = node.style is None and tag in _PLAIN
            if tag == "!tuple" or (implicit and _TUPLE.fullmatch(node.value)):
                node.tag = "!tuple"
                self.check_tuple(node)
                return
            if implicit and tag.endswith(":int") and len(node.value) > MAX_DIGITS:
                what = f"a number of more than {MAX_DIGITS} digits"
                raise self.refusal(node, what)
        if tag.startswith(("!new:", "!name:")):
            try:
                model_class(tag.partition(":")[2])
            except UnsafeYAMLError as error:
                raise self.refusal(node, f"the tag {tag}", str(error)) from None
            if isinstance(node, ScalarNode) and node.value:
                raise self.refusal(node, f"{tag} {node.value}", "arguments in a list")
        elif tag not in _PLAIN:
            raise self.refusal(
                node, f"the tag {_shown(tag)}", "!new:, !name:, !ref and !tuple alone"
            )

    def check_tuple(self, node):
        try:
            value = _tuple(node.value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            value = (None,)
        if any(not isinstance(item, (int, float, str)) for item in value):
            raise self.refusal(
                node, f"the !tuple {node.value[:80]}", "numbers and quoted strings"
            )

    @staticmethod
    def refusal(node, what, allowed=""):
        detail = f" ({allowed})" if allowed else ""
        return UnsafeYAMLError(
            f"line {node.start_mark.line + 1}: {printable(what)} is refused"
            f"{printable(detail)}"
        )


def _tag(node):
    return str(node.tag or "")


def _tuple(text):
    return tuple(ast.literal_eval(f"[{text.strip()[1:-1]}]"))


def _shown(tag):
    return tag.replace("tag:yaml.org,2002:", "!!")


class _ModelConstructor(SafeConstructor):
    """Builds objects of nodes that :class:`_Check` has seen."""

    limit: AllocationLimit | None = None

    def arguments(self, node):
        if isinstance(node, MappingNode):
            return [], self.construct_mapping(node, deep=True)
        if isinstance(node, SequenceNode):
            return self.construct_sequence(node, deep=True), {}
        return [], {}

    def new(self, name, node):
        args, kwargs = self.arguments(node)
        built = model_class(name)(*args, **kwargs)
        if self.limit is not None and isinstance(built, torch.nn.Module):
            self.limit.count(built)
        return built

    def name(self, name, node):
        args, kwargs = self.arguments(node)
        found = model_class(name)
        return functools.partial(found, *args, **kwargs) if args or kwargs else found

    def tuple(self, node):
        return _tuple(node.value)


_ModelConstructor.add_multi_constructor("!new:", _ModelConstructor.new)
_ModelConstructor.add_multi_constructor("!name:", _ModelConstructor.name)
_ModelConstructor.add_constructor("!tuple", _ModelConstructor.tuple)
