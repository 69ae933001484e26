"""Layers with no opinion: quantisers, likelihoods, lengths."""
