"""Models that classify images."""

from __future__ import annotations

from typing import Any

from adapters.huggingface_training.zoo import (
    CLASSIFY,
    HALF,
    PLAIN,
    SEGMENT,
    ModelSpec,
    family,
)


def _vit(width: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    """Return the sizes of a vision transformer whose inner layers are four times as wide."""
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": more.pop("intermediate_size", 4 * width),
        **more,
    }


_TINY, _SMALL = _vit(192, 12, 3), _vit(384, 12, 6)
_BASE, _LARGE, _HUGE = _vit(768, 12, 12), _vit(1024, 24, 16), _vit(1280, 32, 16)


def _base(model_type: str, image_size: int = 224, **more: Any) -> ModelSpec:
    return ModelSpec("", model_type, CLASSIFY, image_size, **more)


def _stages(depths: list[int], widths: list[int], **more: Any) -> dict[str, Any]:
    return {"depths": depths, "hidden_sizes": widths, **more}


def _swin(width: int, depths: list[int], heads: list[int], window: int = 7) -> dict[str, Any]:
    return {"embed_dim": width, "depths": depths, "num_heads": heads, "window_size": window}


_SWIN_T = _swin(96, [2, 2, 6, 2], [3, 6, 12, 24])
_SWIN_S = _swin(96, [2, 2, 18, 2], [3, 6, 12, 24])
_SWIN_B = _swin(128, [2, 2, 18, 2], [4, 8, 16, 32])
_SWIN_L = _swin(192, [2, 2, 18, 2], [6, 12, 24, 48])


def _beit(size: int = 224, **widths: Any) -> dict[str, Any]:
    return {"image_size": size, "use_relative_position_bias": True, **widths}


def _cvt(stage_widths: list[int], heads: list[int], depth: list[int]) -> dict[str, Any]:
    return {"embed_dim": stage_widths, "num_heads": heads, "depth": depth}


SPECS: list[ModelSpec] = [
    *family(
        _base("vit", normalisation=HALF),
        [
            ("vit-tiny-patch16-224", "WinKawaks", _TINY),
            ("vit-small-patch16-224", "WinKawaks", _SMALL),
            ("vit-base-patch16-224", "google", _BASE),
            ("vit-base-patch16-224-in21k", "google", _BASE),
            ("vit-base-patch16-384", "google", {**_BASE, "image_size": 384}),
            ("vit-base-patch32-224-in21k", "google", {**_BASE, "patch_size": 32}),
            ("vit-base-patch32-384", "google", {**_BASE, "image_size": 384, "patch_size": 32}),
            ("vit-large-patch16-224", "google", _LARGE),
            ("vit-large-patch16-224-in21k", "google", _LARGE),
            ("vit-large-patch16-384", "google", {**_LARGE, "image_size": 384}),
            ("vit-large-patch32-384", "google", {**_LARGE, "image_size": 384, "patch_size": 32}),
            ("vit-huge-patch14-224-in21k", "google", {**_HUGE, "patch_size": 14}),
            # To train from the beginning on small images.
            ("vit-tiny", None, {**_TINY, "image_size": 64, "patch_size": 8}),
            ("vit-micro", None, {**_vit(96, 6, 3), "image_size": 32, "patch_size": 4}),
            ("vit-test", None, {**_vit(32, 2, 2), "image_size": 32, "patch_size": 8}),
        ],
    ),
    *family(
        _base("deit"),
        [
            ("deit-tiny-patch16-224", "facebook", _TINY),
            ("deit-small-patch16-224", "facebook", _SMALL),
            ("deit-base-patch16-224", "facebook", _BASE),
            ("deit-base-patch16-384", "facebook", {**_BASE, "image_size": 384}),
        ],
    ),
    *family(
        _base("vit_msn"),
        [
            ("vit-msn-small", "facebook", _SMALL),
            ("vit-msn-base", "facebook", _BASE),
            ("vit-msn-large", "facebook", _LARGE),
        ],
    ),
    *family(
        _base("dinov2", size_step=14, config={"patch_size": 14, "image_size": 518}),
        [
            ("dinov2-small", "facebook", _vit(384, 12, 6)),
            ("dinov2-base", "facebook", _BASE),
            ("dinov2-large", "facebook", _LARGE),
            (
                "dinov2-giant",
                "facebook",
                {**_vit(1536, 40, 24), "use_swiglu_ffn": True},
            ),
        ],
    ),
    *family(
        _base("dinov2_with_registers", size_step=14, config={"patch_size": 14, "image_size": 518}),
        [
            ("dinov2-with-registers-small", "facebook", _vit(384, 12, 6)),
            ("dinov2-with-registers-base", "facebook", _BASE),
            ("dinov2-with-registers-large", "facebook", _LARGE),
        ],
    ),
    *family(
        _base("ijepa", normalisation=HALF),
        [("ijepa_vith14_1k", "facebook", {**_HUGE, "patch_size": 14})],
    ),
    *family(
        _base("beit", normalisation=HALF),
        [
            ("beit-base-patch16-224", "microsoft", _beit(**_BASE)),
            ("beit-base-patch16-384", "microsoft", _beit(384, **_BASE)),
            ("beit-large-patch16-224", "microsoft", _beit(**_LARGE)),
            ("beit-large-patch16-384", "microsoft", _beit(384, **_LARGE)),
        ],
    ),
    *family(
        _base("data2vec-vision", normalisation=HALF),
        [
            ("data2vec-vision-base-ft1k", "facebook", _beit(**_BASE)),
            ("data2vec-vision-large-ft1k", "facebook", _beit(**_LARGE)),
        ],
    ),
    *family(
        _base("resnet"),
        [
            (
                "resnet-18",
                "microsoft",
                _stages([2, 2, 2, 2], [64, 128, 256, 512], layer_type="basic"),
            ),
            (
                "resnet-26",
                "microsoft",
                _stages([2, 2, 2, 2], [256, 512, 1024, 2048]),
            ),
            (
                "resnet-34",
                "microsoft",
                _stages([3, 4, 6, 3], [64, 128, 256, 512], layer_type="basic"),
            ),
            ("resnet-50", "microsoft", _stages([3, 4, 6, 3], [256, 512, 1024, 2048])),
            ("resnet-101", "microsoft", _stages([3, 4, 23, 3], [256, 512, 1024, 2048])),
            ("resnet-152", "microsoft", _stages([3, 8, 36, 3], [256, 512, 1024, 2048])),
            (
                "resnet-tiny",
                None,
                _stages(
                    [2, 2, 2], [32, 64, 128], embedding_size=32, layer_type="basic", image_size=32
                ),
            ),
            (
                "resnet-test",
                None,
                _stages([1, 1], [8, 16], embedding_size=8, layer_type="basic", image_size=32),
            ),
        ],
    ),
    *family(
        _base("convnext"),
        [
            ("convnext-tiny-224", "facebook", _stages([3, 3, 9, 3], [96, 192, 384, 768])),
            ("convnext-small-224", "facebook", _stages([3, 3, 27, 3], [96, 192, 384, 768])),
            ("convnext-base-224", "facebook", _stages([3, 3, 27, 3], [128, 256, 512, 1024])),
            ("convnext-large-224", "facebook", _stages([3, 3, 27, 3], [192, 384, 768, 1536])),
            (
                "convnext-base-224-22k",
                "facebook",
                _stages([3, 3, 27, 3], [128, 256, 512, 1024]),
            ),
            (
                "convnext-micro",
                None,
                _stages([2, 2, 2, 2], [32, 64, 96, 128], num_stages=4, patch_size=2, image_size=32),
            ),
            (
                "convnext-test",
                None,
                _stages([1, 1], [8, 16], num_stages=2, patch_size=4, image_size=32),
            ),
        ],
    ),
    *family(
        _base("convnextv2"),
        [
            ("convnextv2-atto-1k-224", "facebook", _stages([2, 2, 6, 2], [40, 80, 160, 320])),
            ("convnextv2-femto-1k-224", "facebook", _stages([2, 2, 6, 2], [48, 96, 192, 384])),
            ("convnextv2-pico-1k-224", "facebook", _stages([2, 2, 6, 2], [64, 128, 256, 512])),
            ("convnextv2-nano-1k-224", "facebook", _stages([2, 2, 8, 2], [80, 160, 320, 640])),
            ("convnextv2-tiny-1k-224", "facebook", _stages([3, 3, 9, 3], [96, 192, 384, 768])),
            (
                "convnextv2-base-1k-224",
                "facebook",
                _stages([3, 3, 27, 3], [128, 256, 512, 1024]),
            ),
            (
                "convnextv2-large-1k-224",
                "facebook",
                _stages([3, 3, 27, 3], [192, 384, 768, 1536]),
            ),
        ],
    ),
    *family(
        _base("swin"),
        [
            ("swin-tiny-patch4-window7-224", "microsoft", _SWIN_T),
            ("swin-small-patch4-window7-224", "microsoft", _SWIN_S),
            ("swin-base-patch4-window7-224", "microsoft", _SWIN_B),
            ("swin-large-patch4-window7-224", "microsoft", _SWIN_L),
            (
                "swin-base-patch4-window12-384",
                "microsoft",
                {**_SWIN_B, "window_size": 12, "image_size": 384},
            ),
            (
                "swin-test",
                None,
                {**_swin(16, [1, 1], [2, 2], 4), "image_size": 32, "patch_size": 4},
            ),
        ],
    ),
    *family(
        _base("swinv2", image_size=256),
        [
            ("swinv2-tiny-patch4-window8-256", "microsoft", {**_SWIN_T, "window_size": 8}),
            ("swinv2-small-patch4-window8-256", "microsoft", {**_SWIN_S, "window_size": 8}),
            ("swinv2-base-patch4-window8-256", "microsoft", {**_SWIN_B, "window_size": 8}),
        ],
    ),
    *family(
        _base("regnet"),
        [
            (
                "regnet-y-040",
                "facebook",
                _stages([2, 6, 12, 2], [128, 192, 512, 1088], groups_width=64),
            ),
            (
                "regnet-y-080",
                "facebook",
                _stages([2, 4, 10, 1], [168, 448, 896, 2016], groups_width=56),
            ),
        ],
    ),
    *family(
        _base("mobilenet_v1", normalisation=HALF),
        [("mobilenet_v1_1.0_224", "google", {"tf_padding": True})],
    ),
    *family(
        _base("mobilenet_v2", normalisation=HALF),
        [
            ("mobilenet_v2_1.0_224", "google", {"tf_padding": True}),
            ("mobilenet_v2_1.4_224", "google", {"tf_padding": True, "depth_multiplier": 1.4}),
        ],
    ),
    *family(
        _base("mobilevit", image_size=256, size_step=32, normalisation=PLAIN),
        [
            (
                "mobilevit-xx-small",
                "apple",
                {
                    "hidden_sizes": [64, 80, 96],
                    "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320],
                    "expand_ratio": 2.0,
                    "hidden_dropout_prob": 0.05,
                },
            ),
            (
                "mobilevit-x-small",
                "apple",
                {
                    "hidden_sizes": [96, 120, 144],
                    "neck_hidden_sizes": [16, 32, 48, 64, 80, 96, 384],
                },
            ),
            ("mobilevit-small", "apple", {}),
        ],
    ),
    *family(
        _base("mobilevitv2", image_size=256, size_step=32, normalisation=PLAIN),
        [("mobilevitv2-1.0-imagenet1k-256", "apple", {})],
    ),
    *family(
        _base("efficientnet"),
        [
            (
                f"efficientnet-b{number}",
                "google",
                {
                    "width_coefficient": width,
                    "depth_coefficient": depth,
                    "image_size": size,
                    "dropout_rate": dropout,
                    "hidden_dim": features,
                    **({"depthwise_padding": padding} if padding else {}),
                },
            )
            for number, width, depth, size, dropout, features, padding in (
                (0, 1.0, 1.0, 224, 0.2, 1280, []),
                (1, 1.0, 1.1, 240, 0.2, 1280, [16]),
                (2, 1.1, 1.2, 260, 0.3, 1408, [5, 8, 16]),
                (3, 1.2, 1.4, 300, 0.3, 1536, [5, 18]),
                (4, 1.4, 1.8, 380, 0.4, 1792, [6]),
                (5, 1.6, 2.2, 456, 0.4, 2048, [13, 27]),
            )
        ],
    ),
    *family(
        _base("poolformer"),
        [
            ("poolformer_s12", "sail", {"depths": [2, 2, 6, 2]}),
            ("poolformer_s24", "sail", {"depths": [4, 4, 12, 4]}),
            (
                "poolformer_s36",
                "sail",
                {"depths": [6, 6, 18, 6], "layer_scale_init_value": 1e-6},
            ),
        ],
    ),
    *family(
        _base("pvt"),
        [
            ("pvt-tiny-224", "Xrenya", {"depths": [2, 2, 2, 2]}),
            ("pvt-small-224", "Xrenya", {"depths": [3, 4, 6, 3]}),
            ("pvt-medium-224", "Xrenya", {"depths": [3, 4, 18, 3]}),
            ("pvt-large-224", "Xrenya", {"depths": [3, 8, 27, 3]}),
        ],
    ),
    *family(
        _base("pvt_v2"),
        [
            ("pvt_v2_b0", "OpenGVLab", {}),
            ("pvt_v2_b1", "OpenGVLab", {"hidden_sizes": [64, 128, 320, 512]}),
            (
                "pvt_v2_b2",
                "OpenGVLab",
                _stages([3, 4, 6, 3], [64, 128, 320, 512]),
            ),
            (
                "pvt_v2_b3",
                "OpenGVLab",
                _stages([3, 4, 18, 3], [64, 128, 320, 512]),
            ),
        ],
    ),
    *family(
        _base("levit", size_step=32),
        [
            (
                "levit-128S",
                "facebook",
                {
                    "hidden_sizes": [128, 256, 384],
                    "num_attention_heads": [4, 6, 8],
                    "depths": [2, 3, 4],
                    "key_dim": [16, 16, 16],
                },
            ),
            (
                "levit-192",
                "facebook",
                {
                    "hidden_sizes": [192, 288, 384],
                    "num_attention_heads": [3, 5, 6],
                    "depths": [4, 4, 4],
                    "key_dim": [32, 32, 32],
                },
            ),
            (
                "levit-256",
                "facebook",
                {
                    "hidden_sizes": [256, 384, 512],
                    "num_attention_heads": [4, 6, 8],
                    "depths": [4, 4, 4],
                    "key_dim": [32, 32, 32],
                },
            ),
        ],
    ),
    *family(
        _base("cvt"),
        [
            ("cvt-13", "microsoft", _cvt([64, 192, 384], [1, 3, 6], [1, 2, 10])),
            ("cvt-21", "microsoft", _cvt([64, 192, 384], [1, 3, 6], [1, 4, 16])),
        ],
    ),
    *family(
        _base("focalnet"),
        [
            ("focalnet-tiny", "microsoft", {"focal_levels": [3, 3, 3, 3]}),
            (
                "focalnet-small",
                "microsoft",
                {"depths": [2, 2, 18, 2], "focal_levels": [3, 3, 3, 3]},
            ),
            (
                "focalnet-base",
                "microsoft",
                {
                    "depths": [2, 2, 18, 2],
                    "embed_dim": 128,
                    "hidden_sizes": [128, 256, 512, 1024],
                    "focal_levels": [3, 3, 3, 3],
                },
            ),
        ],
    ),
    *family(
        _base("bit", normalisation=HALF),
        [("bit-50", "google", {"global_padding": "same"})],
    ),
    *family(
        _base("swiftformer"),
        [
            ("swiftformer-xs", "MBZUAI", {}),
            (
                "swiftformer-s",
                "MBZUAI",
                {"depths": [3, 3, 9, 6], "embed_dims": [48, 64, 168, 224]},
            ),
            (
                "swiftformer-l1",
                "MBZUAI",
                {"depths": [4, 3, 10, 5], "embed_dims": [48, 96, 192, 384]},
            ),
        ],
    ),
    *family(_base("hgnet_v2"), [("hgnetv2-l", None, {})]),
    *family(
        _base("hiera"),
        [("hiera-base-224", None, {}), ("hiera-tiny-224", None, {"depths": [1, 2, 7, 2]})],
    ),
    *(
        ModelSpec(
            f"mit-b{number}",
            "segformer",
            (*CLASSIFY, *SEGMENT),
            224,
            size_step=32,
            hub=f"nvidia/mit-b{number}",
            config={
                "depths": depths,
                "hidden_sizes": [32, 64, 160, 256] if number == 0 else [64, 128, 320, 512],
                "decoder_hidden_size": 256 if number < 2 else 768,
            },
        )
        for number, depths in enumerate(
            (
                [2, 2, 2, 2],
                [2, 2, 2, 2],
                [3, 4, 6, 3],
                [3, 4, 18, 3],
                [3, 8, 27, 3],
                [3, 6, 40, 3],
            )
        )
    ),
]
