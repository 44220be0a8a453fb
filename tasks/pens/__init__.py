"""Drawings as sequences of a pen's moves, and the images and films that they are."""

from tasks.pens.coding import decode, encode, in_unit_square, levels_of, on_grid
from tasks.pens.rendering import film, image
from tasks.pens.task import pens

__all__ = ["decode", "encode", "film", "image", "in_unit_square", "levels_of", "on_grid", "pens"]
