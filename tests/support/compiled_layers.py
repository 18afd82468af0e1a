"""Models to compile the layers of, and a backend that counts."""

from __future__ import annotations

from typing import Any

import torch
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from torch._dynamo.backends.common import aot_autograd

from dhp.models.lora import with_adapters
from dhp.models.weights import recompute_layers
from dhp.settings.config import TrainConfig
from family_models import make


class Programs:
    """Traces as every backend does, and compiles nothing. Counts programs, and calls of attention in backward
    passes."""

    def __init__(self) -> None:
        self.made = 0
        self.attends_again = 0
        self._compile = aot_autograd(
            fw_compiler=lambda graph, _: make_boxed_func(graph.forward),
            bw_compiler=self._backward,
            partition_fn=min_cut_rematerialization_partition,
        )

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.made += 1
        return self._compile(graph, inputs)

    def _backward(self, graph: Any, _: Any) -> Any:
        attention = torch.ops.dhp.ring_attention_with_lse.default
        self.attends_again += sum(node.target is attention for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)


def model_of(name: str, recompute: str = "none", lora: bool = False) -> Any:
    """In fp64; with `lora` as peft changes it."""
    model = make(name, torch.float64)
    if lora:
        model = with_adapters(model, TrainConfig("model", "data", lora_rank=4, lora_alpha=8.0)).get_base_model()
        with torch.no_grad():  # peft begins with nothing added
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn_like(parameter))
    if recompute != "none":
        recompute_layers(model, keep_attention=recompute == "keep_attention")
    return model
