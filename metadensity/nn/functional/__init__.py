"""Functions with a gradient of their own, each beside its plain oracle."""
