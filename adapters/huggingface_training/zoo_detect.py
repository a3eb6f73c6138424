"""Models that find objects."""

from __future__ import annotations

from typing import Any

from adapters.huggingface_training.zoo import DETECT, PLAIN, ModelSpec, family


def _base(model_type: str, image_size: int, **more: Any) -> ModelSpec:
    return ModelSpec("", model_type, DETECT, image_size, **more)


def _resnet(depths: list[int], stages: tuple[int, ...], **more: Any) -> dict[str, Any]:
    """Return the library's own ResNet as a backbone, which needs no timm."""
    return {
        "model_type": "resnet",
        "depths": depths,
        "out_features": [f"stage{number}" for number in stages],
        **more,
    }


def _detr(depths: list[int], stages: tuple[int, ...] = (4,), **more: Any) -> dict[str, Any]:
    return {"backbone_config": _resnet(depths, stages), **more}


# Layer norms, which learn from random weights where DETR's frozen batch norms do not.
def _convnext(depths: list[int], widths: list[int], stages: tuple[int, ...]) -> dict[str, Any]:
    return {
        "model_type": "convnext",
        "depths": depths,
        "hidden_sizes": widths,
        "out_features": [f"stage{number}" for number in stages],
    }


def _transformer(width: int, layers: int, heads: int = 4) -> dict[str, Any]:
    return {
        "d_model": width,
        "encoder_layers": layers,
        "decoder_layers": layers,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": 2 * width,
        "decoder_ffn_dim": 2 * width,
        "dropout": 0.0,
        "auxiliary_loss": True,
    }


def _rt_backbone(
    depths: list[int], *, basic: bool = False, widths: list[int] | None = None
) -> dict[str, Any]:
    return {
        "model_type": "rt_detr_resnet",
        "depths": depths,
        "layer_type": "basic" if basic else "bottleneck",
        "hidden_sizes": widths or ([64, 128, 256, 512] if basic else [256, 512, 1024, 2048]),
        "out_features": ["stage2", "stage3", "stage4"],
        # A shortcut of the published small ones.
        **({"downsample_in_first_stage": False} if basic else {}),
    }


def _rt_detr(depths: list[int], *, basic: bool, decoder_layers: int, width: int) -> dict[str, Any]:
    return {
        "backbone_config": _rt_backbone(depths, basic=basic),
        "encoder_in_channels": [128, 256, 512] if basic else [512, 1024, 2048],
        "encoder_hidden_dim": width,
        "encoder_ffn_dim": 2048 if width == 384 else 1024,
        "decoder_in_channels": [width] * 3,
        "decoder_layers": decoder_layers,
        "hidden_expansion": 0.5 if basic else 1.0,
    }


def _small_rt(width: int, backbone: list[int], **more: Any) -> dict[str, Any]:
    """Return an RT-DETR that learns from random weights: its batch norms are not frozen."""
    return {
        "backbone_config": {
            **_rt_backbone([1, 1, 1, 1], basic=True, widths=backbone),
            "embedding_size": backbone[0],
        },
        "freeze_backbone_batch_norms": False,
        "encoder_in_channels": backbone[1:],
        "encoder_hidden_dim": width,
        "encoder_ffn_dim": 2 * width,
        "encoder_attention_heads": 4,
        "decoder_in_channels": [width] * 3,
        "d_model": width,
        "decoder_ffn_dim": 2 * width,
        "decoder_attention_heads": 4,
        "hidden_expansion": 0.5,
        "dropout": 0.0,
        **more,
    }


def _yolos(width: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "use_mid_position_embeddings": False,
        **more,
    }


_DEFORMABLE = {"num_feature_levels": 4}

SPECS: list[ModelSpec] = [
    *family(
        _base("detr", 640),
        [
            # 'no_timm': the same weights for the library's own ResNet.
            (
                "detr-resnet-50",
                "facebook",
                _detr([3, 4, 6, 3], revision="no_timm"),
            ),
            ("detr-resnet-101", "facebook", _detr([3, 4, 23, 3], revision="no_timm")),
            (
                "detr-tiny",
                None,
                {
                    **_transformer(128, 3),
                    "image_size": 256,
                    "num_queries": 50,
                    "backbone_config": _convnext([2, 2, 4, 2], [48, 96, 160, 256], (4,)),
                },
            ),
            (
                "detr-test",
                None,
                {
                    **_transformer(32, 1),
                    "image_size": 64,
                    "num_queries": 10,
                    "backbone_config": _convnext([1, 1, 1, 1], [8, 16, 16, 32], (4,)),
                },
            ),
        ],
    ),
    *family(
        _base("conditional_detr", 640),
        [("conditional-detr-resnet-50", "microsoft", _detr([3, 4, 6, 3]))],
    ),
    *family(
        _base("dab-detr", 640),
        [("dab-detr-resnet-50", "IDEA-Research", _detr([3, 4, 6, 3]))],
    ),
    *family(
        _base("deformable_detr", 640, config=_DEFORMABLE),
        [
            ("deformable-detr", "SenseTime", _detr([3, 4, 6, 3], (2, 3, 4))),
            (
                "deformable-detr-with-box-refine",
                "SenseTime",
                _detr([3, 4, 6, 3], (2, 3, 4), with_box_refine=True),
            ),
            (
                "deformable-detr-test",
                None,
                {
                    **_transformer(32, 2),
                    "image_size": 64,
                    "num_queries": 10,
                    "num_feature_levels": 3,
                    "backbone_config": _convnext([1, 1, 1, 1], [8, 16, 16, 32], (2, 3, 4)),
                },
            ),
        ],
    ),
    *family(
        _base("rt_detr", 640, size_step=32, normalisation=PLAIN),
        [
            (
                "rtdetr_r18vd",
                "PekingU",
                _rt_detr([2, 2, 2, 2], basic=True, decoder_layers=3, width=256),
            ),
            (
                "rtdetr_r34vd",
                "PekingU",
                _rt_detr([3, 4, 6, 3], basic=True, decoder_layers=4, width=256),
            ),
            (
                "rtdetr_r50vd",
                "PekingU",
                _rt_detr([3, 4, 6, 3], basic=False, decoder_layers=6, width=256),
            ),
            (
                "rtdetr_r101vd",
                "PekingU",
                _rt_detr([3, 4, 23, 3], basic=False, decoder_layers=6, width=384),
            ),
            (
                "rtdetr-tiny",
                None,
                _small_rt(96, [32, 48, 96, 160], image_size=160, num_queries=60, decoder_layers=2),
            ),
            (
                "rtdetr-test",
                None,
                _small_rt(
                    32,
                    [8, 16, 16, 32],
                    image_size=64,
                    num_queries=10,
                    decoder_layers=1,
                    num_denoising=10,
                ),
            ),
        ],
    ),
    *family(
        _base("rt_detr_v2", 640, size_step=32, normalisation=PLAIN),
        [
            (
                "rtdetr_v2_r18vd",
                "PekingU",
                _rt_detr([2, 2, 2, 2], basic=True, decoder_layers=3, width=256),
            ),
            (
                "rtdetr_v2_r34vd",
                "PekingU",
                _rt_detr([3, 4, 6, 3], basic=True, decoder_layers=4, width=256),
            ),
            (
                "rtdetr_v2_r50vd",
                "PekingU",
                _rt_detr([3, 4, 6, 3], basic=False, decoder_layers=6, width=256),
            ),
        ],
    ),
    *family(
        _base("d_fine", 640, size_step=32, normalisation=PLAIN),
        [("dfine-large-coco", "ustc-community", {})],
    ),
    *family(_base("deimv2", 640, size_step=32), [("deimv2-base", None, {})]),
    *family(_base("rf_detr", 560, size_step=56), [("rf-detr-base", "Roboflow", {})]),
    *family(
        _base("yolos", 512, size_step=16),
        [
            ("yolos-tiny", "hustvl", _yolos(192, 12, 3)),
            (
                "yolos-small",
                "hustvl",
                _yolos(384, 12, 6, use_mid_position_embeddings=True),
            ),
            (
                "yolos-base",
                "hustvl",
                _yolos(768, 12, 12, use_mid_position_embeddings=True),
            ),
            (
                "yolos-test",
                None,
                _yolos(32, 2, 2, image_size=64, num_detection_tokens=10),
            ),
        ],
    ),
]
