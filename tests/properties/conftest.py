"""Properties are checked on the same examples every time, wherever they run."""

from hypothesis import settings
from speechbrain.utils.importutils import LazyModule

settings.register_profile(
    "package", derandomize=True, deadline=None, database=None, max_examples=30
)
settings.load_profile("package")

# Hypothesis asks every loaded module for its file, upon which SpeechBrain's lazy
# modules would import what is not installed.
LazyModule.__file__ = None
