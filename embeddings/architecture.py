"""From a checkpoint to an open_clip model that is ready to encode."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from embeddings.checkpoints import Checkpoint, read_weights
from embeddings.errors import EncoderError
from embeddings.preprocess import Preprocess

__all__ = ["build", "fold_batch_norms", "preprocess_of"]

_SHOWN = 3


def build(checkpoint: Checkpoint) -> tuple[Any, str]:
    """Make the model and fill it with its weights.

    Returns:
        The model in evaluation mode, in fp32 on the CPU, batch norms folded; the SHA-256 of the weights file.

    Raises:
        EncoderError: the configuration describes no model, or the weights do not fit it.
    """
    weights, sha256 = read_weights(checkpoint)
    model = _skeleton(checkpoint)
    _fill(model, weights, checkpoint)
    model.requires_grad_(False)
    model.eval()
    model.visual = fold_batch_norms(model.visual, preprocess_of(model, checkpoint).size)
    return model, sha256


def preprocess_of(model: Any, checkpoint: Checkpoint) -> Preprocess:
    """What the model wants of a picture: the checkpoint's settings over open_clip's defaults.

    Raises:
        EncoderError: the input is not square, or a setting has no meaning.
    """
    size = model.visual.image_size
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise EncoderError(
            f"{checkpoint.name} wants {height} × {width} pixels; only square inputs are supported"
        )
    given = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), {**checkpoint.preprocess, "size": height}))
    if given.interpolation not in ("bicubic", "bilinear") or given.resize_mode not in (
        "shortest",
        "longest",
        "squash",
    ):
        raise EncoderError(
            f"{checkpoint.name} wants interpolation {given.interpolation!r} and resize mode "
            f"{given.resize_mode!r}, "
            "which open_clip does not know; correct preprocess_cfg"
        )
    red, green, blue = given.mean
    red_std, green_std, blue_std = given.std
    return Preprocess(
        height,
        (red, green, blue),
        (red_std, green_std, blue_std),
        given.interpolation,
        given.resize_mode,
        given.fill_color,
    )


def fold_batch_norms(tower: nn.Module, size: int) -> nn.Module:
    """Fold each batch norm into the convolution before it: the same function with a third fewer operations.

    Modules are paired in the order in which they were registered, which need not be the order in which data
    flows. So the folded tower must agree with the given one on random input, or the given one is returned.

    Args:
        tower: in evaluation mode.
        size: side of its square input, in pixels.

    References:
        Markuš, "Fusing batch normalization and convolution in runtime", 2018.
    """
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    folded = copy.deepcopy(tower)
    layers = [(name, module) for name, module in folded.named_modules() if isinstance(module, kinds)]
    for (_, conv), (name, norm) in pairwise(layers):
        if not (
            isinstance(conv, nn.Conv2d)
            and isinstance(norm, nn.BatchNorm2d)
            and conv.out_channels == norm.num_features
            and norm.running_mean is not None
            and norm.running_var is not None
        ):
            continue
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        parent, _, leaf = name.rpartition(".")
        # timm's batch norms carry the activation that follows them.
        setattr(folded.get_submodule(parent), leaf, getattr(norm, "act", nn.Identity()))
    if len(layers) == len([name for name, module in folded.named_modules() if isinstance(module, kinds)]):
        return tower
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected, given = tower(images), folded(images)
    agree = torch.nn.functional.cosine_similarity(expected, given).min() > 1 - 1e-5
    return folded if agree else tower


def _skeleton(checkpoint: Checkpoint) -> Any:
    """The model that the configuration describes, with random weights and without any download of its own."""
    config: dict[str, Any] = copy.deepcopy(checkpoint.model)
    custom = config.pop("custom_text", False)
    try:
        if "timm_model_name" in config["vision_cfg"]:
            config["vision_cfg"]["timm_model_pretrained"] = False
        if "hf_model_name" in config["text_cfg"]:
            config["text_cfg"]["hf_model_pretrained"] = False
            custom = True
        if custom:
            kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
        else:
            kind = open_clip.CLIP
        return kind(**config)
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError, RuntimeError, OSError) as error:
        raise EncoderError(
            f"the configuration of {checkpoint.name} describes no open_clip model: {error}"
        ) from error


def _fill(model: nn.Module, weights: dict[str, torch.Tensor], checkpoint: Checkpoint) -> None:
    """Load weights whose names and shapes must all fit.

    open_clip's own loader would stretch position embeddings of another size or context length to fit; that is
    a wrong pairing here, since the configuration always comes with the weights.
    """
    try:
        weights = convert_state_dict(model, weights)
        if "positional_embedding" in weights and not hasattr(model, "positional_embedding"):
            weights = convert_to_custom_text_state_dict(weights)
    except (KeyError, AttributeError, RuntimeError) as error:
        raise EncoderError(f"{checkpoint.weights} does not fit {checkpoint.name}: {error}") from error
    wanted = model.state_dict()
    # Neither concerns embeddings, and their shapes differ between versions of open_clip.
    for name in ("logit_scale", "logit_bias"):
        weights.pop(name, None)
        if name in wanted:
            weights[name] = wanted[name]
    weights.pop("text.transformer.embeddings.position_ids", None)  # a buffer of old versions of transformers
    faults = [
        f"{name} is missing"
        if name not in weights
        else f"{name} has shape {tuple(weights[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name not in weights or weights[name].shape != tensor.shape
    ] + [f"{name} has no place" for name in weights if name not in wanted]
    if faults:
        more = f", and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise EncoderError(
            f"{checkpoint.weights} does not fit {checkpoint.name}: {', '.join(faults[:_SHOWN])}{more}; "
            "give the weights that were trained with this configuration"
        )
    model.load_state_dict(weights)
