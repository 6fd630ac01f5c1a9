"""DeepSpeed as OpenRLHF sets it up, on CUDA devices and, for tests and small policies, on the CPU."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import torch

from learners.openrlhf.cluster.library import DeepspeedStrategy
from learners.openrlhf.library import Actor
from learners.openrlhf.options import ClusterOptions
from learners.torch.model import exact_buffers
from learners.torch.optimizer import schedule_factor
from learners.torch.options import TorchOptions
from mutual_env.errors import TrainingError

DTYPES = {"float32": "fp32", "bfloat16": "bf16"}


class ClusterStrategy(DeepspeedStrategy):  # type: ignore[misc]
    """OpenRLHF's strategy with float32 beside bfloat16, and a CPU set-up that asks no GPU for anything.

    DeepSpeed's own gradient accumulation is off (one micro-batch a step in its configuration): how many micro-batches a
    step has is said for each step, and the losses come scaled.
    """

    def __init__(self, options: TorchOptions, cluster: ClusterOptions) -> None:
        super().__init__(
            seed=options.seed % 2**32,  # what numpy's generator takes
            max_norm=options.max_gradient_norm,
            micro_train_batch_size=1,
            train_batch_size=cluster.actors // cluster.ring_attn_size,
            zero_stage=cluster.zero_stage,
            args=_arguments(options, cluster),
        )

    def setup_distributed(self, timeout: timedelta = timedelta(minutes=60)) -> None:
        if torch.cuda.is_available():
            super().setup_distributed(timeout)
            return
        import deepspeed
        from torch.distributed.device_mesh import init_device_mesh

        # an all-reduce through shared memory that DeepSpeed compiles for a minute at every first start: gloo has one
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend="gloo", timeout=timeout)
        self.world_size = torch.distributed.get_world_size()
        shape = (self.world_size // self.ring_attn_size, self.ring_attn_size, 1)
        self.ds_device_mesh = init_device_mesh("cpu", shape, mesh_dim_names=("dp", "sp", "tp"))
        self.setup_ring_attn(self.ds_device_mesh)
        self.accumulated_gradient = 1

    def prepare(self, *models: Any) -> Any:
        """DeepSpeed casts a module whole, the frequencies of its rotary positions too."""
        with ExitStack() as stack:
            for model in models:
                stack.enter_context(exact_buffers((model[0] if isinstance(model, tuple) else model).model))
            return super().prepare(*models)

    def get_ds_train_config(self, optim_dict: dict[str, Any] | None = None, **settings: Any) -> Any:
        if optim_dict is not None and not torch.cuda.is_available():
            parameters = {**optim_dict["params"], "torch_adam": True}  # DeepSpeed's fused Adam compiles for a GPU
            optim_dict = {**optim_dict, "params": parameters}
        return super().get_ds_train_config(optim_dict, **settings)


class DeepspeedSteps:
    """Gradients go to a DeepSpeed engine; the learning rate follows the same schedule as everywhere else."""

    def __init__(self, strategy: ClusterStrategy, actor: Actor, options: TorchOptions) -> None:
        settings = {
            "optim": "adam",
            "adam": {
                "lr": options.learning_rate,
                "betas": (options.beta1, options.beta2),
                "eps": 1e-8,
                "weight_decay": options.weight_decay,
            },
            "lr_scheduler": "constant",
            "lr_warmup_ratio": 0.0,
            "max_norm": options.max_gradient_norm,
            "scheduler_steps": 1,
        }
        self._strategy = strategy
        self._options = options
        self.actor, self._optimizer, _ = strategy.prepare((actor, settings))
        self.engine = self.actor.model
        self.steps = 0
        self.counted = 0  # of these, since Adam's moments began
        self._broken = ""
        if strategy.stage < 3:
            _make_moments(self._optimizer)
        self.restore(0, 0)  # stage 3 takes a step over nothing when it starts, and counts it

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return self._options.learning_rate * schedule_factor(self._options, self.steps)

    def zero_grad(self) -> None:
        if self._broken:
            raise TrainingError(f"{self._broken} Load the last checkpoint before the next update.")

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        self.engine.set_gradient_accumulation_boundary(last)
        # DeepSpeed averages over the actors; the loss of each is its part of a sum. A ring's actors have the same loss,
        # and what was gathered among them hands back the sum of their slopes.
        parts = self._strategy.world_size // self._strategy.ring_attn_size
        self._strategy.backward(loss * parts, self.actor, self._optimizer)

    def step(self, loss: float) -> float:
        """Apply what every actor accumulated. `loss` is the sum over actors, so all refuse together or none."""
        if not torch.isfinite(torch.tensor(loss)):
            self._broken = f"The loss was {loss}; the weights were not touched, the accumulated gradients are spoilt."
            raise TrainingError(f"the loss is {loss}; the weights were not touched. Lower learning_rate.")
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        self._strategy.optimizer_step(self._optimizer, self.actor, None)
        self.steps += 1
        self.counted += 1
        norm: float = self._strategy.get_grad_norm(self.actor)
        if norm != norm or norm in (float("inf"), float("-inf")):
            self._broken = f"The gradient norm was {norm}; the weights are spoilt."
            raise TrainingError(f"the gradient norm is {norm}: lower learning_rate, and go on from the last checkpoint")
        return norm

    def restore(self, steps: int, counted: int) -> None:
        """As if so many steps had been taken, and so many since the moments began, which are put back by the caller."""
        self.steps, self.counted = steps, counted
        self._broken = ""
        inner = getattr(self._optimizer, "optimizer", self._optimizer)
        for group in inner.param_groups:
            if "step" in group:
                group["step"] = counted
        for state in inner.state.values():
            if "step" in state:
                state["step"] = torch.full_like(state["step"], counted) if torch.is_tensor(state["step"]) else counted


def _make_moments(optimizer: Any) -> None:
    """Adam's moments from the start, and known to DeepSpeed's access by parameter.

    By itself DeepSpeed makes them in the first step, group by group, and looks for all of them after the first group.
    """
    inner = optimizer.optimizer
    partitions = getattr(optimizer, "single_partition_of_fp32_groups", None)  # or, in bfloat16 under stage 1:
    for flat in optimizer.fp32_groups_flat_partition if partitions is None else partitions:
        count = torch.zeros(()) if isinstance(inner, torch.optim.AdamW) else 0
        inner.state[flat] = {"step": count, "exp_avg": torch.zeros_like(flat), "exp_avg_sq": torch.zeros_like(flat)}
    optimizer._lazy_init_hp_params_optimizer_state()


def _arguments(options: TorchOptions, cluster: ClusterOptions) -> SimpleNamespace:
    """The part of OpenRLHF's flags that its strategy reads."""
    deepspeed = SimpleNamespace(
        param_dtype=DTYPES[options.dtype],
        zero_stage=cluster.zero_stage,
        adam_offload=cluster.offload_optimizer,
        zpg=1,
        use_universal_ckpt=False,
        grad_accum_dtype="fp32",
        overlap_comm=False,
        deepcompile=False,
        tensor_parallel_size=1,
        ring_attn_size=cluster.ring_attn_size,
        ring_attn_head_stride=cluster.ring_attn_head_stride,
    )
    return SimpleNamespace(ds=deepspeed, train=SimpleNamespace(dynamic_batch_enable=False), local_rank=-1)
