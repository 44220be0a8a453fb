"""Pixels from uniform numbers: the naive sampler and its cached twin."""
