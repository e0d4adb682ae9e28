"""What each network takes, counted by `python -m benchmarks.engine.model_facts`. Generated."""

from training_core.planner.networks import At, Network

NETWORKS = {
    "small_cnn": Network(
        parameters=60688,
        features=64,
        buffer_bytes=0,
        layers=18,
        batch_norm=False,
        at={
            32: At(6784256, 250368),
            64: At(27133184, 999936),
            128: At(108528896, 3998208),
            224: At(332367104, 12243456),
        },
    ),
    "small_resnet": Network(
        parameters=236240,
        features=96,
        buffer_bytes=3248,
        layers=24,
        batch_norm=True,
        at={
            32: At(17696640, 352640),
            64: At(70780800, 1409408),
            128: At(283117440, 5636480),
            224: At(867043200, 17260928),
        },
    ),
    "resnet18": Network(
        parameters=11176512,
        features=512,
        buffer_bytes=38560,
        layers=52,
        batch_norm=True,
        at={
            32: At(74033152, 454656),
            64: At(296101888, 1812480),
            128: At(1184376832, 7243776),
            224: At(3627132928, 22179840),
        },
    ),
    "resnet50": Network(
        parameters=23508032,
        features=2048,
        buffer_bytes=212904,
        layers=126,
        batch_norm=True,
        at={
            32: At(166862848, 1761280),
            64: At(667328512, 7020544),
            128: At(2669191168, 28057600),
            224: At(8174313472, 85909504),
        },
    ),
    "mobilenet_v3_small": Network(
        parameters=1517856,
        features=1024,
        buffer_bytes=48720,
        layers=141,
        batch_norm=True,
        at={
            32: At(4339584, 373600),
            64: At(11005440, 1360864),
            128: At(37668864, 5309920),
            224: At(110993280, 16169824),
        },
    ),
    "mobilenet_v3_large": Network(
        parameters=4202032,
        features=1280,
        buffer_bytes=97968,
        layers=168,
        batch_norm=True,
        at={
            32: At(14174080, 970784),
            64: At(40203520, 3667232),
            128: At(144321280, 14453024),
            224: At(430645120, 44113952),
        },
    ),
}
