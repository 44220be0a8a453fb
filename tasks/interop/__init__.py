"""Interoperation with learn2learn and torchmeta: tasks and episodes in both directions."""
