"""Sound of speech."""
