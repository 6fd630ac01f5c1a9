"""Policies trained by OpenRLHF's own classes. Importing this imports openrlhf, deepspeed and transformers."""

from learners.openrlhf.in_process import InProcessTrainer, make_openrlhf

__all__ = ["InProcessTrainer", "make_openrlhf"]
