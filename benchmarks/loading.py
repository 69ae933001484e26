"""Recipes as modules, for a benchmark or a test to call in its own process."""

import importlib.util
from pathlib import Path

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def load_recipe(name):
    """The module of ``recipes/<name>/train.py``."""
    path = RECIPES / name / "train.py"
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
