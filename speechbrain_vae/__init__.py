"""Autoencoder, VAE, VQ-VAE and space-filling VQ front ends for SpeechBrain."""

__version__ = "0.1.0"
