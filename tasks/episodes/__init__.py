"""Fixed sets of episodes to evaluate on."""
