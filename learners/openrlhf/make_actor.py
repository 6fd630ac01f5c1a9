"""An OpenRLHF `Actor` around a model that is ours."""

from __future__ import annotations

from learners.openrlhf.library import Actor
from learners.openrlhf.options import ActorOptions
from learners.torch.model import LanguageModel


def make_actor(model: LanguageModel, temperature: float, options: ActorOptions) -> Actor:
    """Around a model, never a path: given a path, OpenRLHF runs whatever code the directory holds."""
    if options.attention:
        model.base.set_attn_implementation(options.attention)
    actor = Actor(model.adapted, temperature=temperature)  # it divides the logits by it
    actor.packing_samples = options.packing  # set by OpenRLHF only where it loads the model itself
    size, layer = model.head.size, model.base.get_output_embeddings()
    if size < layer.out_features:  # padding of the vocabulary is no token, here as in the sampler
        layer.register_forward_hook(lambda _module, _args, logits: logits[..., :size])
    return actor
