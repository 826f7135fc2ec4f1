"""Synthetic human motion that makes rare actions recognisable: the science, in plain PyTorch."""
