"""Figures: images and attention maps, shot curves, grids, the inner loop."""
