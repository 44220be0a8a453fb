"""Helpers of commands that train and compare several models."""
