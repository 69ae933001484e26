"""Corpora: one module a corpus, each turns a folder into SpeechBrain manifests."""
