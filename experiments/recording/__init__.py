"""Records of runs: observers, run folders, lineage, checkpoints to resume from, scores, and tables of runs."""
