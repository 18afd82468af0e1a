"""What checkpoint folders that DHP writes have in common."""

from __future__ import annotations

from typing import Any

# What image processors do with pictures before they become patches or tiles.
PROCESSING: dict[str, Any] = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
    "rescale_factor": 1 / 255,
    "resample": 3,
}

# By these names transformers' InternVLProcessor asks its tokenizer for its marks.
INTERNVL_NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}

# Turns are <|im_start|>role\n…<|im_end|>\n; content is text, or a list of parts of type text, image and video.
_CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
{{- 'PICTURE' -}}
{%- elif part['type'] == 'video' -%}
{{- 'CLIP' -}}
{%- else -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def internvl_processor(tile_tokens: int) -> dict[str, Any]:
    """processor_config.json, which says how many tokens a tile becomes."""
    return {"processor_class": "InternVLProcessor", "image_seq_length": tile_tokens}


def chatml(picture: str, clip: str) -> str:
    """A chat template, with what stands for a picture and for a clip."""
    return _CHATML.replace("PICTURE", picture).replace("CLIP", clip)
