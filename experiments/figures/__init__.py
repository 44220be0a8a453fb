"""Numbers and images as pictures."""
