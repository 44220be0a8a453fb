"""Densities: what models return."""
