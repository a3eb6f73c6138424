"""Models that give every pixel its class."""

from __future__ import annotations

from typing import Any

from adapters.huggingface_training.zoo import HALF, PLAIN, SEGMENT, ModelSpec, family

_SIZES = {
    0: ([2, 2, 2, 2], [32, 64, 160, 256], 256),
    1: ([2, 2, 2, 2], [64, 128, 320, 512], 256),
    2: ([3, 4, 6, 3], [64, 128, 320, 512], 768),
    3: ([3, 4, 18, 3], [64, 128, 320, 512], 768),
    4: ([3, 8, 27, 3], [64, 128, 320, 512], 768),
    5: ([3, 6, 40, 3], [64, 128, 320, 512], 768),
}


def _segformer(number: int, **more: Any) -> dict[str, Any]:
    depths, widths, decoder = _SIZES[number]
    return {"depths": depths, "hidden_sizes": widths, "decoder_hidden_size": decoder, **more}


def _base(model_type: str, image_size: int, **more: Any) -> ModelSpec:
    return ModelSpec("", model_type, SEGMENT, image_size, **more)


def _upernet(backbone: dict[str, Any], widths: list[int]) -> dict[str, Any]:
    stages = ["stage1", "stage2", "stage3", "stage4"]
    return {
        "backbone_config": {**backbone, "out_features": stages},
        "use_auxiliary_head": False,
        "hidden_size": 512,
        "auxiliary_in_channels": widths[2],
    }


def _convnext(depths: list[int], widths: list[int]) -> dict[str, Any]:
    return {"model_type": "convnext", "depths": depths, "hidden_sizes": widths}


def _swin(width: int, depths: list[int], heads: list[int]) -> dict[str, Any]:
    return {"model_type": "swin", "embed_dim": width, "depths": depths, "num_heads": heads}


_TINY = _convnext([3, 3, 9, 3], [96, 192, 384, 768])

SPECS: list[ModelSpec] = [
    *family(
        _base("segformer", 512, size_step=32),
        [
            *((f"segformer-b{n}-finetuned-ade-512-512", "nvidia", _segformer(n)) for n in range(5)),
            (
                "segformer-b5-finetuned-ade-640-640",
                "nvidia",
                _segformer(5, image_size=640),
            ),
            *(
                (
                    f"segformer-b{n}-finetuned-cityscapes-1024-1024",
                    "nvidia",
                    _segformer(n, image_size=1024),
                )
                for n in range(6)
            ),
            ("segformer-b0", None, _segformer(0, image_size=256)),
            (
                "segformer-micro",
                None,
                {
                    "image_size": 128,
                    "depths": [1, 1, 1, 1],
                    "hidden_sizes": [16, 32, 64, 96],
                    "decoder_hidden_size": 64,
                    "drop_path_rate": 0.0,
                    # Overlapping patches of half the usual stride: small things stay in sight.
                    "patch_sizes": [5, 3, 3, 3],
                    "strides": [2, 2, 2, 2],
                },
            ),
            (
                "segformer-test",
                None,
                {
                    "image_size": 64,
                    "depths": [1, 1, 1, 1],
                    "hidden_sizes": [8, 16, 16, 32],
                    "num_attention_heads": [1, 1, 2, 2],
                    "decoder_hidden_size": 16,
                },
            ),
        ],
    ),
    *family(
        _base("upernet", 512, size_step=32),
        [
            ("upernet-convnext-tiny", "openmmlab", _upernet(_TINY, [96, 192, 384, 768])),
            (
                "upernet-convnext-small",
                "openmmlab",
                _upernet(_convnext([3, 3, 27, 3], [96, 192, 384, 768]), [96, 192, 384, 768]),
            ),
            (
                "upernet-convnext-base",
                "openmmlab",
                _upernet(_convnext([3, 3, 27, 3], [128, 256, 512, 1024]), [128, 256, 512, 1024]),
            ),
            (
                "upernet-swin-tiny",
                "openmmlab",
                _upernet(_swin(96, [2, 2, 6, 2], [3, 6, 12, 24]), [96, 192, 384, 768]),
            ),
            (
                "upernet-swin-small",
                "openmmlab",
                _upernet(_swin(96, [2, 2, 18, 2], [3, 6, 12, 24]), [96, 192, 384, 768]),
            ),
            (
                "upernet-test",
                None,
                {
                    **_upernet(_convnext([1, 1, 1, 1], [8, 8, 16, 16]), [8, 8, 16, 16]),
                    "hidden_size": 16,
                    "image_size": 64,
                },
            ),
        ],
    ),
    *family(
        _base("beit", 640, normalisation=HALF, size_step=16),
        [
            (
                f"beit-{name}-finetuned-ade-640-640",
                "microsoft",
                {
                    "hidden_size": width,
                    "num_hidden_layers": layers,
                    "num_attention_heads": heads,
                    "intermediate_size": 4 * width,
                    "out_indices": indices,
                    "use_relative_position_bias": True,
                    "use_auxiliary_head": False,
                },
            )
            for name, width, layers, heads, indices in (
                ("base", 768, 12, 12, [3, 5, 7, 11]),
                ("large", 1024, 24, 16, [7, 11, 15, 23]),
            )
        ],
    ),
    *family(
        _base("dpt", 384, normalisation=HALF, size_step=16),
        [
            (
                "dpt-large-ade",
                "Intel",
                {
                    "hidden_size": 1024,
                    "num_hidden_layers": 24,
                    "num_attention_heads": 16,
                    "intermediate_size": 4096,
                    "backbone_out_indices": [5, 11, 17, 23],
                    "neck_hidden_sizes": [256, 512, 1024, 1024],
                    "image_size": 480,
                    "use_auxiliary_head": False,
                },
            ),
            (
                "dpt-test",
                None,
                {
                    "hidden_size": 32,
                    "num_hidden_layers": 4,
                    "num_attention_heads": 2,
                    "intermediate_size": 64,
                    "backbone_out_indices": [0, 1, 2, 3],
                    "neck_hidden_sizes": [8, 16, 32, 32],
                    "fusion_hidden_size": 16,
                    "image_size": 64,
                    "use_auxiliary_head": False,
                },
            ),
        ],
    ),
    *family(
        _base("mobilenet_v2", 513, normalisation=HALF),
        [
            (
                "deeplabv3_mobilenet_v2_1.0_513",
                "google",
                {"tf_padding": True, "output_stride": 8, "finegrained_output": True},
            )
        ],
    ),
    *family(
        _base("mobilevit", 512, normalisation=PLAIN, size_step=32),
        [
            (
                "deeplabv3-mobilevit-xx-small",
                "apple",
                {
                    "hidden_sizes": [64, 80, 96],
                    "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320],
                    "expand_ratio": 2.0,
                    "output_stride": 16,
                },
            ),
            (
                "deeplabv3-mobilevit-x-small",
                "apple",
                {
                    "hidden_sizes": [96, 120, 144],
                    "neck_hidden_sizes": [16, 32, 48, 64, 80, 96, 384],
                    "output_stride": 16,
                },
            ),
            ("deeplabv3-mobilevit-small", "apple", {"output_stride": 16}),
        ],
    ),
    *family(
        _base("mobilevitv2", 512, normalisation=PLAIN, size_step=32),
        [("mobilevitv2-1.0-voc-deeplabv3", "apple", {"output_stride": 16})],
    ),
    *family(
        _base("data2vec-vision", 512, normalisation=HALF, size_step=16),
        [
            (
                "data2vec-vision-base",
                "facebook",
                {
                    "out_indices": [3, 5, 7, 11],
                    "use_relative_position_bias": True,
                    "use_auxiliary_head": False,
                },
            )
        ],
    ),
]
