"""An OpenRLHF `Actor` around a model that is ours."""

from __future__ import annotations

from learners.openrlhf.library import Actor
from learners.torch.model import LanguageModel


def make_actor(model: LanguageModel, temperature: float) -> Actor:
    """Around a model, never a path: given a path, OpenRLHF runs whatever code the directory holds."""
    actor = Actor(model.adapted, temperature=temperature)  # it divides the logits by it
    actor.packing_samples = False  # set by OpenRLHF only where it loads the model itself
    size = model.head.size
    if size < model.head.weight.shape[0]:  # padding of the vocabulary is no token, here as in the sampler
        model.base.get_output_embeddings().register_forward_hook(lambda _module, _args, logits: logits[..., :size])
    return actor
