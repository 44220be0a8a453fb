"""Fixed sets of episodes to evaluate on, and n-way classification episodes."""
