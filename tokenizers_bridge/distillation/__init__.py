"""For whoever distils one model into another of a different vocabulary: batches with masks, tensors with gradients."""
