"""Discrete bottlenecks: each class turns frames [B, T, D] into code indices."""
