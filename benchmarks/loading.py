"""Recipes as modules, for a benchmark or a test to call in its own process."""

import importlib.util
from pathlib import Path

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def load_recipe(name):
    """The module of ``recipes/<name>/train.py``."""
    return load_script(RECIPES / name / "train.py", f"recipe_{name}")


def load_script(path, name="script"):
    """The module of a script."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
