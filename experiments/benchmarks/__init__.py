"""Benchmarks: each module gives ``rows(quick)``, and ``experiments.bench`` runs and records them."""
