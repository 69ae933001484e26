"""Whole models: features, encoders, bottlenecks, decoders, autoencoder."""
