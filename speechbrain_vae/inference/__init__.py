"""Pretrained interfaces, built with ``from_hparams``."""

from speechbrain_vae.inference.features import FeatureEncoder

__all__ = ["FeatureEncoder"]
