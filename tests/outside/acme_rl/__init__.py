"""Another package, with one class of each kind. It imports nothing of ours that is not public."""
