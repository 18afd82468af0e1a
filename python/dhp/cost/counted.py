"""Costs of families that the core does not count: the language model as one that it does count, and the encoder by its
parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dhp._core import CostModel, Freeze, InputError, PassCost, Recompute, analytic_cost, read_device
from dhp.models import family_class
from dhp.models.attention import head_size
from dhp.models.model_folder import empty_model, plain_config

# Of the language model, to one that the core counts alike.
LIKE = {
    "glm4v_text": "llama",
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen2_5_omni_text": "qwen2",
    "qwen3": "qwen3",
}


def cost_by_parts(
    folder: str | Path, *, recompute: Recompute, freeze: Freeze, lora_rank: int, **options: Any
) -> CostModel:
    """`options`: device, ranks and state of `analytic_cost`. Raises InputError for a language model that the core
    cannot count."""
    file = Path(folder) / "config.json"
    model = empty_model(folder, plain_config(folder))
    text = model.config.get_text_config()
    if text.model_type not in LIKE:
        raise InputError(
            f"{file}: model_type: costs of {model.config.model_type} with {text.model_type} cannot be counted; give a "
            "cost file with `cost`, as of a model that is alike (dhp cost -o)"
        )
    tied = {"tie_word_embeddings": model.config.tie_word_embeddings}
    described = json.dumps(text.to_dict() | tied | {"model_type": LIKE[text.model_type]})
    own_freeze = Freeze(llm=freeze.llm)
    cost = analytic_cost(described, str(file), recompute=recompute, freeze=own_freeze, lora_rank=lora_rank, **options)
    _add_encoder(cost, model, options, recompute, trains=not (freeze.vit or lora_rank))
    return cost


def _add_encoder(cost: CostModel, model: Any, options: dict[str, Any], recompute: Recompute, trains: bool) -> None:
    """Encoder and projector: seconds and bytes of a patch, and the bytes of their weights."""
    device = read_device(options["device"])
    parameters = sum(p.numel() for p in family_class(model)(model).encoder_parameters)
    if not parameters:  # of text alone
        return
    weights, gradients, sharded = options["state"]
    cost.state_bytes += parameters * (weights + (gradients + sharded / options["ranks"] if trains else 0.0))
    cost.gradient_bytes += parameters * device.bytes_per_value * trains
    again = recompute != Recompute.none
    # A product of a patch with every matrix: two FLOP a weight; backward two such products.
    hears = sum(p.numel() for name, p in model.named_parameters() if ".audio_tower." in name)
    # A picture's patch or a sound's frame: one of two encoders that are alike.
    own = max(parameters - hears, hears)
    cost.patch_s = (1.0 + (2.0 + again) * trains) * 2.0 * own / device.linear_flop_per_s
    vision = model.config.vision_config
    layers = getattr(vision, "num_hidden_layers", None) or vision.depth
    kept = layers * vision.hidden_size * (1.0 if again else 16.0)  # inputs of blocks, or all of them
    cost.patch_bytes = kept * device.bytes_per_value * trains


def uncounted_cost(folder: str | Path, device: str, recompute: Recompute) -> CostModel:
    """Of a language model that the core cannot count, what needs no counting: heads, bytes that travel, and a memory
    that counts tokens. Its seconds are 0, to be measured."""
    config = empty_model(folder, plain_config(folder)).config
    text = config.get_text_config()
    heads = text.num_attention_heads
    kv_heads = heads if getattr(text, "kv_lora_rank", None) else getattr(text, "num_key_value_heads", None) or heads
    kv_values = 2.0 * text.num_hidden_layers * kv_heads * head_size(text)
    forward = kv_values * read_device(device).bytes_per_value
    backward = (1.0 + (recompute == Recompute.full)) * forward + 4.0 * kv_values  # gradients travel in fp32
    return CostModel(
        config.model_type,
        text.num_hidden_layers,
        0.0,
        0.0,
        PassCost(0.0, 0.0, 0.0, 0.0, forward, 0.0),
        PassCost(0.0, 0.0, 0.0, 0.0, backward, 0.0),
        heads,
        kv_heads,
        token_bytes=1.0,
        state_bytes=0.0,
    )
