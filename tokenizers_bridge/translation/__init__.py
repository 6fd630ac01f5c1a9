"""From an author's tokens to a reader's: alignment, batches, single rows, what was lost."""
