"""Sacred experiments: verbs (train, evaluate, sample) over nouns (task, model, training)."""
