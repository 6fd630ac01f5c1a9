"""vLLM as the sampler of any learner. Importing this loads no vLLM: its worker processes import it too."""

from learners.sampling import Sample, Sampling
from learners.vllm.engine import SamplingEngine
from learners.vllm.local import LocalEngine
from learners.vllm.sampled import ExportsWeights, VllmSampled
from learners.vllm.transport import FileTransport, NativeTransport, Rendezvous, make_transport

__all__ = [
    "ExportsWeights",
    "FileTransport",
    "LocalEngine",
    "NativeTransport",
    "Rendezvous",
    "Sample",
    "Sampling",
    "SamplingEngine",
    "VllmSampled",
    "make_transport",
]
