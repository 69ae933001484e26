"""Pretrained interfaces, built with ``from_hparams``."""
