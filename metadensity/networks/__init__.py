"""Networks: features or logits of pixels, given a conditioning."""
