"""Building blocks, written once for sequences, images and volumes."""
