"""Costs of families that the core does not count: the language model as one that it does count, if need be by its FLOP
over that one's, and the encoder by its parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AttentionInterface

from dhp._core import CostModel, Freeze, InputError, PassCost, Recompute, analytic_cost, read_device
from dhp.base.json_file import first_line
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
    folder: str | Path, *, recompute: Recompute, freeze: Freeze, lora_rank: int, counts_tokens: bool, **options: Any
) -> CostModel:
    """`options`: device, ranks and state of `analytic_cost`. `counts_tokens`: memory will count tokens alone. Raises
    InputError for a language model that can be counted in no way, and for memory where only FLOP can be.
    """
    file = Path(folder) / "config.json"
    model = empty_model(folder, plain_config(folder))
    text = model.config.get_text_config()
    is_known = text.model_type in LIKE
    if not is_known and not counts_tokens:
        raise InputError(
            f"{file}: model_type: memory of {model.config.model_type} with {text.model_type} cannot be counted; count "
            "tokens instead of bytes with capacity_tokens (--capacity-tokens), or give a cost file"
        )
    sizes = text.to_dict() if is_known else _stand_in(text, file)
    like = {"tie_word_embeddings": model.config.tie_word_embeddings, "model_type": LIKE.get(text.model_type, "llama")}
    described = json.dumps(sizes | like)
    own_freeze = Freeze(llm=freeze.llm)
    cost = analytic_cost(described, str(file), recompute=recompute, freeze=own_freeze, lora_rank=lora_rank, **options)
    if not is_known:
        _scale(cost, _flop_of(model, file), _flop_of(_empty_llama(sizes | like), file))
    _add_encoder(cost, model, options, recompute, trains=not (freeze.vit or lora_rank))
    if not counts_tokens:
        _add_patch_bytes(cost, model, options, recompute, file, trains=not (freeze.vit or lora_rank))
    return cost


def _stand_in(text: Any, file: Path) -> dict[str, Any]:
    """The Llama that has as many layers and heads, of the same sizes. Raises InputError where the config does not say
    them."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    sizes: dict[str, Any] = {name: _number(text, file, name) for name in names}
    kv_heads, inner = (getattr(text, name, None) for name in ("num_key_value_heads", "intermediate_size"))
    return sizes | {
        "num_key_value_heads": kv_heads if isinstance(kv_heads, int) and kv_heads else sizes["num_attention_heads"],
        "head_dim": _head_size(text, file),
        "intermediate_size": inner if isinstance(inner, int) else 4 * sizes["hidden_size"],
    }


def _number(config: Any, file: Path, *names: str, instead: str = "give a cost file, as of dhp calibrate") -> int:
    """The first of these that a config has as a number from 1 on. Raises InputError, which says what to do `instead`,
    where it has none."""
    values = {name: getattr(config, name, None) for name in names}
    for value in values.values():
        if type(value) is int and value > 0:
            return value
    found = next((value for value in values.values() if value is not None), None)
    said = "nothing" if found is None else json.dumps(found, default=str)[:80]
    kind = getattr(config, "model_type", "") or "the model"
    raise InputError(
        f"{file}: {' or '.join(names)} of {kind}: found {said}, expected a number from 1 on, without which its "
        f"cost cannot be counted; {instead}"
    )


def _head_size(text: Any, file: Path) -> int:
    """Raises InputError where the config does not say it."""
    if not getattr(text, "qk_rope_head_dim", None) and not getattr(text, "head_dim", None):
        _number(text, file, "hidden_size")
        _number(text, file, "num_attention_heads")
    return head_size(text)


def _empty_llama(config: dict[str, Any]) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig(**{key: value for key, value in config.items() if key != "model_type"}))


def _plain_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: object, **__: object
) -> tuple[torch.Tensor, None]:
    """Two products, without a mask, which transformers could not make without numbers."""
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    return (query @ key.transpose(2, 3) @ value).transpose(1, 2), None


def _flop_of(model: Any, file: Path) -> tuple[float, float]:
    """Of a token, and of a square of tokens: the language model with its head, forward, on tensors without memory.
    Raises InputError for a model that needs numbers for that."""
    text = family_class(model)(model).text
    AttentionInterface.register("dhp_flop", _plain_attention)
    counted = []
    short = 256
    try:
        text.set_attn_implementation("dhp_flop")
        for tokens in (short, 2 * short):
            embeds = torch.empty(1, tokens, text.config.hidden_size, device="meta", dtype=text.dtype)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                model.get_output_embeddings()(text(inputs_embeds=embeds, use_cache=False).last_hidden_state)
            counted.append(counter.get_total_flops())
    except Exception as error:  # whatever a model does with numbers that are not there
        raise InputError(
            f"{file}: model_type: FLOP of {model.config.model_type} cannot be counted without numbers "
            f"({first_line(error)}); give a cost file, as of dhp calibrate"
        ) from None
    square = (counted[1] - 2 * counted[0]) / (2 * short**2)
    return counted[0] / short - square * short, square


def _scale(cost: CostModel, own: tuple[float, float], stand_in: tuple[float, float]) -> None:
    forward, backward = cost.forward, cost.backward
    for one in (forward, backward):
        one.token_s *= own[0] / stand_in[0]
        one.pair_s *= own[1] / stand_in[1]
    cost.forward, cost.backward = forward, backward


def _add_encoder(cost: CostModel, model: Any, options: dict[str, Any], recompute: Recompute, trains: bool) -> None:
    """Encoder and projector: seconds of a patch, and the bytes of their weights."""
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


def _add_patch_bytes(
    cost: CostModel, model: Any, options: dict[str, Any], recompute: Recompute, file: Path, trains: bool
) -> None:
    """What is kept of a patch. Raises InputError where the config does not say how deep and wide the encoder is."""
    if not family_class(model)(model).encoder_parameters:  # of text alone
        return
    vision = getattr(model.config, "vision_config", None)
    instead = "count tokens instead of bytes with capacity_tokens (--capacity-tokens), or give a cost file"
    layers = _number(vision, file, "num_hidden_layers", "depth", instead=instead)
    width = _number(vision, file, "hidden_size", "embed_dim", instead=instead)
    kept = layers * width * (16.0 if recompute == Recompute.none else 1.0)  # all of its blocks, or their inputs
    cost.patch_bytes = kept * read_device(options["device"]).bytes_per_value * trains


def uncounted_cost(folder: str | Path, device: str, recompute: Recompute) -> CostModel:
    """Of a language model that the core cannot count, what needs no counting: heads, bytes that travel, and a memory
    that counts tokens. Its seconds are 0, to be measured."""
    config = empty_model(folder, plain_config(folder)).config
    text, file = config.get_text_config(), Path(folder) / "config.json"
    layers, heads = _number(text, file, "num_hidden_layers"), _number(text, file, "num_attention_heads")
    kv_heads = heads if getattr(text, "kv_lora_rank", None) else getattr(text, "num_key_value_heads", None) or heads
    kv_values = 2.0 * layers * kv_heads * _head_size(text, file)
    forward = kv_values * read_device(device).bytes_per_value
    backward = (1.0 + (recompute == Recompute.full)) * forward + 4.0 * kv_values  # gradients travel in fp32
    return CostModel(
        config.model_type,
        layers,
        0.0,
        0.0,
        PassCost(0.0, 0.0, 0.0, 0.0, forward, 0.0),
        PassCost(0.0, 0.0, 0.0, 0.0, backward, 0.0),
        heads,
        kv_heads,
        token_bytes=1.0,
        state_bytes=0.0,
    )
