"""Tiny checkpoint folders of families whose own processor makes the data, in each family's shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

from family_models import SIGLIP, TEXT
from huggingface_reference import module_of

LLAVA_TEMPLATE = (
    "{% for m in messages %}{{ 'USER: ' if m['role'] == 'user' else 'ASSISTANT:' }}"
    "{% if m['content'] is string %}{{ (' ' if m['role'] != 'user' else '') + m['content'] }}{% else %}"
    "{% for p in m['content'] %}{{ '<image>\\n' if p['type'] == 'image' else p['text'] }}{% endfor %}{% endif %}"
    "{{ ' ' if m['role'] == 'user' else '</s>' }}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
ONEVISION_TEMPLATE = LLAVA_TEMPLATE.replace(
    "{{ '<image>\\n' if p['type'] == 'image' else p['text'] }}",
    "{{ p['text'] if p['type'] == 'text' else '<' + p['type'] + '>\\n' }}",
)
IDEFICS_TEMPLATE = (
    "<|begin|>{% for m in messages %}{{ m['role'] | capitalize }}:"
    "{% if m['content'] is string %}{{ ' ' + m['content'] }}{% else %}"
    "{% for p in m['content'] %}{{ '<image>' if p['type'] == 'image' else p['text'] }}{% endfor %}{% endif %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
MISTRAL_TEMPLATE = (
    "<s>{% for m in messages %}{% if m['role'] == 'user' %}[INST]{% endif %}{% if m['content'] is string %}"
    "{{ m['content'] }}{% else %}{% for p in m['content'] %}{{ '[IMG]' if p['type'] == 'image' else p['text'] }}"
    "{% endfor %}{% endif %}{{ '[/INST]' if m['role'] == 'user' else '</s>' }}{% endfor %}"
)
WORDS = [
    "What is it? Describe it well. Waves, wide and blurred. Stripes of colour. Two and two? Four.",
    "Name a colour, and then another one, please. Red. Blue. ",
] * 4
TOKENS = {
    "llava": ("<image>", "</s>"),
    "llava_onevision": ("<image>", "<video>", "</s>"),
    "idefics3": ("<|begin|>", "<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"),
    "mistral3": ("<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"),
}
TEMPLATES = {
    "llava": LLAVA_TEMPLATE,
    "llava_onevision": ONEVISION_TEMPLATE,
    "idefics3": IDEFICS_TEMPLATE,
    "mistral3": MISTRAL_TEMPLATE,
}


def tokenizer_of(family: str) -> Any:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(WORDS, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False))
    cells = [f"<row_{i + 1}_col_{j + 1}>" for i in range(6) for j in range(6)] if family == "idefics3" else []
    made.add_special_tokens([AddedToken(token, special=True) for token in (*TOKENS[family], *cells)])
    end = "<end_of_utterance>" if family == "idefics3" else "</s>"
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=end, pad_token=end, chat_template=TEMPLATES[family]
    )


def processor_of(family: str, tokenizer: Any) -> Any:
    if family == "llava":
        pictures = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        return tf.LlavaProcessor(pictures, tokenizer, patch_size=4, vision_feature_select_strategy="full")
    if family == "idefics3":
        pictures = Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 16})
        return tf.Idefics3Processor(pictures, tokenizer, image_seq_len=4)
    if family == "llava_onevision":
        return onevision_processor(tokenizer)
    pictures = PixtralImageProcessorPil(size={"longest_edge": 48}, patch_size={"height": 8, "width": 8})
    kind = module_of("pixtral", "processing_pixtral").PixtralProcessor
    return kind(pictures, tokenizer, patch_size=4, spatial_merge_size=2)


ONEVISION = {
    "num_image_tokens": 16,
    "vision_feature_select_strategy": "full",
    "vision_aspect_ratio": "anyres_max_2",
    "image_token": "<image>",
    "video_token": "<video>",
}
TILES = [[16 * down, 16 * across] for down in (1, 2, 3) for across in (1, 2, 3)]
CLIPS = {
    "video_processor_type": "LlavaOnevisionVideoProcessor",
    "size": {"height": 16, "width": 16},
    "do_sample_frames": True,
    "num_frames": 4,
    "rescale_factor": 1 / 255,
}


def onevision_processor(tokenizer: Any) -> Any:
    """Without its constructor, which insists on torchvision."""
    made: Any = object.__new__(tf.LlavaOnevisionProcessor)
    made.tokenizer, made.chat_template = tokenizer, None
    made.image_processor = LlavaOnevisionImageProcessorPil(size=CLIPS["size"], image_grid_pinpoints=TILES)
    for key, value in ONEVISION.items():
        setattr(made, key, value)
    return made


def write_smolvlm(folder: Path) -> None:
    """A checkpoint of Idefics3 made one of SmolVLM, which is told clips too."""
    write_checkpoint(folder, "idefics3")
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "smolvlm"}))
    template = folder / "chat_template.jinja"
    template.write_text(
        template.read_text().replace("else p['text']", "else '<video>' if p['type'] == 'video' else p['text']")
    )
    whole = json.loads((folder / "processor_config.json").read_text()) | {"processor_class": "SmolVLMProcessor"}
    whole["image_processor"]["image_processor_type"] = "SmolVLMImageProcessor"
    (folder / "processor_config.json").write_text(json.dumps(whole))
    clips = {
        "video_processor_type": "SmolVLMVideoProcessor",
        "resample": 1,
        "rescale_factor": 1 / 255,
        "max_image_size": {"longest_edge": 16},
        "do_sample_frames": True,
        "video_sampling": {"max_frames": 6, "fps": 1, "video_size": {"longest_edge": 32}},
    }
    (folder / "video_preprocessor_config.json").write_text(json.dumps(clips))


def model_of(family: str, tokenizer: Any) -> Any:
    ids = tokenizer.convert_tokens_to_ids
    text = TEXT | {"vocab_size": 512, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    if family == "llava":
        vision = SIGLIP | {"model_type": "siglip_vision_model", "vision_use_head": False, "image_size": 32}
        taken = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
        config = tf.LlavaConfig(
            text_config=text | {"model_type": "llama"}, vision_config=vision, image_token_index=ids("<image>"), **taken
        )
        return tf.LlavaForConditionalGeneration(config)
    if family == "llava_onevision":
        config = tf.LlavaOnevisionConfig(
            text_config=text | {"model_type": "qwen2"},
            vision_config=SIGLIP | {"model_type": "siglip_vision_model", "vision_use_head": False},
            image_token_index=ids("<image>"),
            video_token_index=ids("<video>"),
            image_grid_pinpoints=TILES,
            vision_aspect_ratio="anyres_max_2",
        )
        return tf.LlavaOnevisionForConditionalGeneration(config)
    if family == "idefics3":
        config = tf.Idefics3Config(
            text_config=text | {"model_type": "llama"}, vision_config=dict(SIGLIP), image_token_id=ids("<image>"),
            scale_factor=2,
        )  # fmt: skip
        return tf.Idefics3ForConditionalGeneration(config)
    vision = SIGLIP | {"model_type": "pixtral", "image_size": 48, "head_dim": 8}
    config = tf.Mistral3Config(
        text_config=text | {"model_type": "mistral", "sliding_window": None, "head_dim": 8}, vision_config=vision,
        spatial_merge_size=2, vision_feature_layer=-1, image_token_index=ids("[IMG]"),
    )  # fmt: skip
    return tf.Mistral3ForConditionalGeneration(config)


def write_checkpoint(folder: Path, family: str) -> tuple[Path, Any]:
    """The folder, and its processor: where torchvision is, the one that transformers makes of the folder."""
    processor = _write_checkpoint(folder, family)
    if tf.utils.is_torchvision_available():
        processor = tf.AutoProcessor.from_pretrained(folder)
    return folder, processor


def _write_checkpoint(folder: Path, family: str) -> Any:
    tokenizer = tokenizer_of(family)
    processor = processor_of(family, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model_of(family, processor.tokenizer).save_pretrained(folder)
    if family != "llava_onevision":
        processor.save_pretrained(folder)
        return processor
    tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps(ONEVISION))
    (folder / "video_preprocessor_config.json").write_text(json.dumps(CLIPS))
    return processor
