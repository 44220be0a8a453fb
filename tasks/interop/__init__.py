"""learn2learn and torchmeta: our tasks as theirs, their episodes as ours."""
