import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from hgtrain.config.load import config_json_schema, load_config
from hgtrain.config.schema import Config
from hgtrain.errors import ConfigError

# Each text follows a first line `data: {train: a.h5}`; the message follows `a.yaml:`.
WRONG_VALUES = [
    # whole numbers
    ("training: {batch_size: 0}", "2: training.batch_size must be at least 1, got 0"),
    ("training: {batch_size: -3}", "2: training.batch_size must be at least 1, got -3"),
    (
        "training:\n  batch_size: '8'",
        '3: training.batch_size must be a whole number, got "8" (without the quotes)',
    ),
    (
        "training: {batch_size: 8.0}",
        "2: training.batch_size must be a whole number, got 8.0 (write 8)",
    ),
    (
        "training: {epochs: 1e3}",
        "2: training.epochs must be a whole number, got 1000.0 (write 1000)",
    ),
    ("training: {epochs: 1.5}", "2: training.epochs must be a whole number, got 1.5"),
    ("training: {epochs: true}", "2: training.epochs must be a whole number, got true"),
    ("training: {epochs: null}", "2: training.epochs must be a whole number, got null"),
    ("training: {epochs: 1_000}", '2: training.epochs must be a whole number, got "1_000"'),
    ("training: {epochs: 0o17}", '2: training.epochs must be a whole number, got "0o17"'),
    ("training: {epochs: 010}", '2: training.epochs must be a whole number, got "010"'),
    ("training: {epochs: 1:30}", '2: training.epochs must be a whole number, got "1:30"'),
    (
        "training: {epochs: 2026-01-02}",
        '2: training.epochs must be a whole number, got "2026-01-02"',
    ),
    (
        "training: {epochs: 3000000000}",
        "2: training.epochs must be at most 2147483647, got 3000000000",
    ),
    ("training: {epochs: [1, 2]}", "2: training.epochs must be a whole number, got [1, 2]"),
    (
        "training: {max_minutes: 0}",
        "2: training.max_minutes must be at least 0.01 or null, got 0",
    ),
    (
        "training: {max_minutes: 10 min}",
        '2: training.max_minutes must be a number or null, got "10 min"',
    ),
    (
        "training: {steps_per_epoch: 2147483647}",
        "2: training.steps_per_epoch must be at most 10000000 or null, got 2147483647",
    ),
    ("training: {seed: 4294967296}", "2: training.seed must be at most 4294967295, got 4294967296"),
    ("training: {seed: -1}", "2: training.seed must be at least 0, got -1"),
    (
        "training: {steps_per_epoch: x}",
        '2: training.steps_per_epoch must be a whole number or null, got "x"',
    ),
    ("training: {warmup_steps: -1}", "2: training.warmup_steps must be at least 0 or null, got -1"),
    (
        "training: {plateau_patience_epochs: 0}",
        "2: training.plateau_patience_epochs must be at least 1, got 0",
    ),
    ("checkpoint: {keep: 0}", "2: checkpoint.keep must be at least 1, got 0"),
    (
        "checkpoint:\n  every_steps: 0",
        "3: checkpoint.every_steps must be at least 1 or null, got 0",
    ),
    # numbers
    (
        "training: {learning_rate: '1e-3'}",
        '2: training.learning_rate must be a number, got "1e-3" (without the quotes)',
    ),
    ("training: {learning_rate: 0}", "2: training.learning_rate must be at least 1e-10, got 0"),
    (
        "training: {learning_rate: .nan}",
        "2: training.learning_rate must be a finite number, got NaN",
    ),
    (
        "training: {learning_rate: 1e999}",
        "2: training.learning_rate must be a finite number, got Infinity",
    ),
    ("training: {learning_rate: true}", "2: training.learning_rate must be a number, got true"),
    ("training: {ema: 1}", "2: training.ema must be at most 0.999999 or null, got 1"),
    ("training: {ema: 0}", "2: training.ema must be at least 1e-06 or null, got 0"),
    ("training: {ema: yes}", '2: training.ema must be a number or null, got "yes"'),
    (
        "training: {plateau_factor: 1.0}",
        "2: training.plateau_factor must be at most 0.999999, got 1.0",
    ),
    ("training: {weight_decay: -0.1}", "2: training.weight_decay must be at least 0, got -0.1"),
    (
        "training: {gradient_clip_norm: 0.0}",
        "2: training.gradient_clip_norm must be at least 1e-06 or null, got 0.0",
    ),
    ("model: {head: {sigma_px: 0}}", "2: model.head.sigma_px must be at least 0.1, got 0"),
    (
        "model: {head: {loss_weight: -.inf}}",
        "2: model.head.loss_weight must be a finite number, got -Infinity",
    ),
    ("model: {head: {sigma_px: 1e30}}", "2: model.head.sigma_px must be at most 256, got 1e+30"),
    ("augmentation: {noise_std: -1}", "2: augmentation.noise_std must be at least 0, got -1"),
    # true and false
    (
        "training: {deterministic: yes}",
        '2: training.deterministic must be true or false, got "yes" (write true)',
    ),
    (
        "output: {tensorboard: off}",
        '2: output.tensorboard must be true or false, got "off" (write false)',
    ),
    ("output: {tensorboard: 1}", "2: output.tensorboard must be true or false, got 1 (write true)"),
    ("output: {tensorboard: [1]}", "2: output.tensorboard must be true or false, got [1]"),
    # choices
    ("training: {xla: true}", "2: training.xla must be on, off or auto, got true (write on)"),
    ("training: {xla: false}", "2: training.xla must be on, off or auto, got false (write off)"),
    (
        "training: {optimizer: Adam}",
        '2: training.optimizer must be adam or sgd, got "Adam" (did you mean adam?)',
    ),
    (
        "training: {schedule: cosin}",
        '2: training.schedule must be cosine, plateau or constant, got "cosin" (did you mean '
        "cosine?)",
    ),
    (
        "training: {precision: float16}",
        "2: training.precision must be float32, mixed_bfloat16 or mixed_float16, "
        'got "float16" (did you mean mixed_float16?)',
    ),
    ("training: {device: 0}", "2: training.device must be auto, cpu or gpu, got 0"),
    (
        "augmentation: {flip: null}",
        "2: augmentation.flip must be none, horizontal, vertical or both, got null (write none)",
    ),
    (
        "augmentation: {fill: [reflect]}",
        '2: augmentation.fill must be constant or reflect, got ["reflect"]',
    ),
    (
        "model: {head: {type: centroids}}",
        "2: model.head.type must be single_instance, multi_instance, centroid or "
        "centered_instance, "
        'got "centroids" (did you mean centroid?)',
    ),
    (
        "model: {head: {paf_width_px: 8}}",
        "2: model.head.paf_width_px belongs to multi_instance, and model.head.type is "
        "single_instance (remove paf_width_px, or set type to multi_instance)",
    ),
    (
        "model: {head: {type: multi_instance, anchor: thorax}}",
        "2: model.head.anchor belongs to centroid and centered_instance, and model.head.type is "
        "multi_instance (remove anchor, or set type to centroid)",
    ),
    (
        "model: {head: {type: centroid, anchor: 3}}",
        "2: model.head.anchor must be a keypoint's name, got 3",
    ),
    (
        "model: {backbone: {type: associative_embedding, reinject: true}}",
        "2: model.backbone.reinject belongs to hourglass, and model.backbone.type is "
        "associative_embedding (remove reinject, or set type to hourglass)",
    ),
    (
        "model: {backbone: {type: residual_hourglass, stem_filters: 64}}",
        "2: model.backbone.stem_filters belongs to hourglass, and model.backbone.type is "
        "residual_hourglass (remove stem_filters, or set type to hourglass)",
    ),
    (
        "model: {backbone: {type: residual_hourglass, filter_increase: 0}}",
        "2: model.backbone.filter_increase belongs to hourglass and associative_embedding, and "
        "model.backbone.type is residual_hourglass (remove filter_increase, or set type to "
        "hourglass)",
    ),
    (
        "model: {backbone: {type: residual}}",
        "2: model.backbone.type must be hourglass, associative_embedding or residual_hourglass, "
        'got "residual" (did you mean residual_hourglass?)',
    ),
    (
        "model: {backbone: {stem_stride: 8}}",
        "2: model.backbone.stem_stride must be 1, 2 or 4, got 8",
    ),
    (
        "model: {backbone: {stem_stride: true}}",
        "2: model.backbone.stem_stride must be 1, 2 or 4, got true",
    ),
    (
        "model: {backbone: {stem_stride: 1.0}}",
        "2: model.backbone.stem_stride must be 1, 2 or 4, got 1.0",
    ),
    (
        "model: {backbone: {stem_stride: null}}",
        "2: model.backbone.stem_stride must be 1, 2 or 4, got null",
    ),
    # powers of two
    (
        "model:\n  backbone:\n    max_stride: 48",
        "4: model.backbone.max_stride must be a power of two, got 48 (nearest: 32, 64)",
    ),
    (
        "model: {backbone: {output_stride: 3}}",
        "2: model.backbone.output_stride must be a power of two, got 3 (nearest: 2, 4)",
    ),
    (
        "model: {backbone: {max_stride: 0}}",
        "2: model.backbone.max_stride must be at least 1, got 0",
    ),
    # ranges
    (
        "augmentation: {scale: 1.1}",
        "2: augmentation.scale must be [low, high] or null, two finite numbers, got 1.1",
    ),
    (
        "augmentation: {scale: [0.9, 1.0, 1.1]}",
        "2: augmentation.scale must be [low, high] or null, two finite numbers, got [0.9, 1.0, "
        "1.1]",
    ),
    (
        "augmentation: {rotation_deg: ['-10', 10]}",
        "2: augmentation.rotation_deg must be [low, high] or null, two finite numbers, "
        'got ["-10", 10]',
    ),
    (
        "augmentation: {brightness: [false, true]}",
        "2: augmentation.brightness must be [low, high] or null, two finite numbers, got [false, "
        "true]",
    ),
    (
        "augmentation: {brightness: [0, .inf]}",
        "2: augmentation.brightness must be [low, high] or null, two finite numbers, got [0, "
        "Infinity]",
    ),
    (
        "augmentation:\n  translation_px:\n  - 10\n  - -10",
        "3: augmentation.translation_px must have low <= high, got [10, -10] (write [-10, 10])",
    ),
    (
        "augmentation: {scale: [0, 1.1]}",
        "2: augmentation.scale must have both ends at least 0.01, got [0, 1.1] (null turns it off)",
    ),
    (
        "augmentation: {gamma: [-1, 1]}",
        "2: augmentation.gamma must have both ends at least 0.01, got [-1, 1] (null turns it off)",
    ),
    (
        "augmentation: {contrast: [-0.1, 1]}",
        "2: augmentation.contrast must have both ends at least 0, got [-0.1, 1] (null turns it "
        "off)",
    ),
    (
        "augmentation: {blur_sigma_px: [-1, 0]}",
        "2: augmentation.blur_sigma_px must have both ends at least 0, got [-1, 0] (null turns it "
        "off)",
    ),
    (
        "augmentation: {blur_sigma_px: [0, 1e6]}",
        "2: augmentation.blur_sigma_px must have both ends at most 50, got [0, 1000000.0] (null "
        "turns it off)",
    ),
    (
        "augmentation: {rotation_deg: [-1e300, 0]}",
        "2: augmentation.rotation_deg must have both ends at least -10000, got [-1e+300, 0] (null "
        "turns it off)",
    ),
    # paths
    ("output: {run_dir: ''}", '2: output.run_dir must be a path, got ""'),
    ("output: {run_dir: 7}", "2: output.run_dir must be a path, got 7"),
    ('output: {run_dir: "a\\0b"}', '2: output.run_dir must be a path, got "a\\u0000b"'),
    ('output: {run_dir: "\\udcff"}', '2: output.run_dir must be a path, got "\\udcff"'),
    ('output: {run_dir: "~\\ud800"}', '2: output.run_dir must be a path, got "~\\ud800"'),
    # text
    (
        'augmentation: {flip: "\\ud800"}',
        '2: augmentation.flip must be text of whole characters, got "\\ud800"',
    ),
    # sections
    ("checkpoint: 5", "2: checkpoint must be a section with the keys every_steps, keep, got 5"),
    ("output: [a]", '2: output must be a section with the keys run_dir, tensorboard, got ["a"]'),
    (
        "model: {head: x}",
        "2: model.head must be a section with the keys type, sigma_px, loss_weight, offsets, "
        "offsets_loss_weight, paf_width_px, paf_loss_weight, max_instances, peak_threshold, "
        "min_line_score, min_keypoints, assignment, anchor, crop_size_px, centroid_jitter, got "
        '"x"',
    ),
    ("model: []", "2: model must be a section with the keys backbone, head, got []"),
    # unknown keys
    (
        "training: {batchsize: 4}",
        "2: unknown key training.batchsize (did you mean training.batch_size?)",
    ),
    (
        "training: {Batch-Size: 4}",
        "2: unknown key training.Batch-Size (did you mean training.batch_size?)",
    ),
    ("batch_size: 4", "2: unknown key batch_size (did you mean training.batch_size?)"),
    ("backbone: {stacks: 2}", "2: unknown key backbone (did you mean model.backbone?)"),
    ("model:\n  stacks: 2", "3: unknown key model.stacks (did you mean model.backbone.stacks?)"),
    ("traning: {}", "2: unknown key traning (did you mean training?)"),
    (
        "model: {head: {sigma: 5}}",
        "2: unknown key model.head.sigma (did you mean model.head.sigma_px?)",
    ),
    ("checkpoint: {lr: 1}", "2: unknown key checkpoint.lr (known here: every_steps, keep)"),
    # the text
    (
        "training:\n  seed: 1\n  epochs: 5\n  seed: 2",
        "5: training.seed is given twice, first on line 3 (remove one)",
    ),
    ("data: {train: b.h5}", "2: data is given twice, first on line 1 (remove one)"),
    ("1: x", "2: a key must be text, got 1"),
    ("training: {null: x}", "2: a key must be text, got null in training"),
    ("a: &a {}\nmodel: {<<: *a}", "3: merge keys (<<) are not read in model (write the keys out)"),
]

WRONG_TOGETHER = [
    ("max_stride: 4", "max_stride must be greater than stem_stride (4), got 4 (nearest: 8)"),
    (
        "output_stride: 2",
        "output_stride must be at least stem_stride (4), got 2 (set output_stride to 4, or "
        "stem_stride to 2)",
    ),
    (
        "output_stride: 128, stacks: 1",
        "output_stride must be at most max_stride (64), got 128 (nearest: 64)",
    ),
    (
        "output_stride: 8, stacks: 2",
        "output_stride must equal stem_stride (4) when stacks is 2, got 8 (set output_stride to "
        "4, or stacks to 1)",
    ),
    (
        "stem_stride: 2",
        "output_stride must equal stem_stride (2) when stacks is 3, got 4 (set output_stride to "
        "2, or stacks to 1)",
    ),
    (
        "type: associative_embedding, output_stride: 8, stacks: 1",
        "output_stride must equal stem_stride (4) where type is associative_embedding, got 8 (set "
        "output_stride to 4)",
    ),
    (
        "type: residual_hourglass, output_stride: 8, stacks: 2",
        "output_stride must equal stem_stride (4) when stacks is 2, got 8 (set output_stride to "
        "4, or stacks to 1)",
    ),
    (
        "type: residual_hourglass, filters: 30",
        "filters must be a multiple of 4 where type is residual_hourglass, got 30 (nearest: 28, "
        "32)",
    ),
    (
        "type: associative_embedding, filters: 3",
        "filters must be a multiple of 4 where type is associative_embedding, got 3 (nearest: 4)",
    ),
]

WRONG_DATA = [
    ("", "a.yaml: data.train is required: a file, a list of files, or builtin:flies"),
    ("data:", "a.yaml:1: data.train is required: a file, a list of files, or builtin:flies"),
    (
        "\ndata: {split_seed: 1}",
        "a.yaml:2: data.train is required: a file, a list of files, or builtin:flies",
    ),
    ("data: a.h5", "a.yaml:1: data must be a section with the keys train, validation, group_by,"),
    ("data: {train: null}", "a.yaml:1: data.train must be a file or a list of files, got null"),
    ("data: {train: []}", "a.yaml:1: data.train must be a file or a list of files, got []"),
    ("data: {train: [a.h5, 5]}", 'data.train must be a file or a list of files, got ["a.h5", 5]'),
    (
        "data: {train: {a: b}}",
        'a.yaml:1: data.train must be a file or a list of files, got {"a": "b"}',
    ),
    ("data: {train: ['']}", 'a.yaml:1: data.train must be a path, got ""'),
    ("data: {train: [a.h5, ./a.h5]}", '/a.h5" twice (remove one)'),
    (
        "data: {train: 'builtin:flise'}",
        'data.train names an unknown dataset, got "builtin:flise" (did you mean builtin:flies?)',
    ),
    (
        "data: {train: a.h5, validation: 1}",
        "data.validation must be greater than 0 and less than 1, got 1",
    ),
    (
        "data: {train: a.h5, validation: 0.0}",
        "data.validation must be greater than 0 and less than 1, got 0.0",
    ),
    (
        "data: {train: a.h5, validation: true}",
        "data.validation must be a fraction greater than 0 and less than 1, a file or a list of "
        "files, got true",
    ),
    ("data: {train: a.h5, validation: .nan}", "a file or a list of files, got NaN"),
    (
        "data: {train: a.h5, validation: a.h5}",
        "data.validation must not hold a file of data.train, got ",
    ),
    ("data: {train: a.h5, validation: [b.h5, a.h5]}", '/a.h5" (use a fraction to split a file)'),
    (
        "data: {train: a.h5, validation: b.h5, group_by: video}",
        'data.group_by must be null where data.validation names files, got "video"',
    ),
    (
        "data: {train: a.h5, group_by: fly}",
        'data.group_by must be group or video or null, got "fly"',
    ),
    ("data: {train: a.h5, channels: 2}", "data.channels must be 1, 3 or null, got 2"),
    ("data: {train: a.h5, channels: true}", "data.channels must be 1, 3 or null, got true"),
    ("data: {train: a.h5, input_scale: 4.5}", "data.input_scale must be at most 4, got 4.5"),
    ("data: {train: a.h5, input_scale: 0}", "data.input_scale must be at least 0.01, got 0"),
    (
        "data: {train: a.h5, image_shape: [100000, 5, 1]}",
        "data.image_shape must have sides of at most 65536 pixels, got [100000, 5, 1]",
    ),
    (
        "data: {train: a.h5, cache: disk}",
        'data.cache must be auto, device, ram or none, got "disk"',
    ),
    (
        "data: {train: a.h5, cache: null}",
        "data.cache must be auto, device, ram or none, got null (write none)",
    ),
]


@pytest.fixture
def mistakes(tmp_path, monkeypatch):
    """Return a function from a config's text and overrides to the message it gives."""
    monkeypatch.chdir(tmp_path)

    def read(text, *overrides):
        (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load_config("a.yaml", overrides)
        return str(caught.value)

    return read


@pytest.mark.parametrize(("text", "message"), WRONG_VALUES)
def test_a_wrong_value_is_named_with_its_line_key_and_fix(mistakes, text, message):
    assert f"a.yaml:{message}" in mistakes(f"data: {{train: a.h5}}\n{text}\n").splitlines()


@pytest.mark.parametrize(("keys", "message"), WRONG_TOGETHER)
def test_strides_that_do_not_fit_together_are_named_with_a_fix(mistakes, keys, message):
    text = f"data: {{train: a.h5}}\nmodel: {{backbone: {{{keys}}}}}\n"
    assert mistakes(text) == f"a.yaml:2: model.backbone.{message}"


@pytest.mark.parametrize(("text", "message"), WRONG_DATA)
def test_a_wrong_data_section_is_named(mistakes, text, message):
    answer = mistakes(text)
    assert message in answer
    assert "\n" not in answer


def test_a_minimum_learning_rate_above_the_learning_rate_is_named(mistakes):
    text = "data: {train: a.h5}\ntraining:\n  learning_rate: 1e-7\n"
    assert (
        mistakes(text)
        == "a.yaml:3: training.min_learning_rate must be at most learning_rate (1e-07), got 1e-06"
    )


def test_xla_with_deterministic_operations_is_named(mistakes):
    text = "data: {train: a.h5}\ntraining:\n  deterministic: true\n  xla: on\n"
    expected = (
        "a.yaml:4: training.xla must be off or auto with training.deterministic: true, got on"
    )
    assert mistakes(text) == expected


def test_recomputing_with_statistics_of_several_devices_is_named(mistakes):
    text = "data: {train: a.h5}\ntraining:\n  synchronize_batch_norm: true\n  recompute: true\n"
    problem = (
        "must be false where training.synchronize_batch_norm is true, got true (set one of them to "
        "false)"
    )
    assert mistakes(text) == f"a.yaml:4: training.recompute {problem}"


def test_all_mistakes_are_reported_together_in_the_order_of_the_lines(mistakes):
    text = (
        "training:\n  batch_size: 0\n  seed: 1\n  seed: 2\n"
        "model:\n  backbone: {output_stride: 2}\n"
        "data: {train: a.h5}\nepochs: 3\n"
    )
    assert mistakes(text, "training.ema=2").splitlines() == [
        "a.yaml:2: training.batch_size must be at least 1, got 0",
        "a.yaml:4: training.seed is given twice, first on line 3 (remove one)",
        "a.yaml:6: model.backbone.output_stride must be at least stem_stride (4), got 2 "
        "(set output_stride to 4, or stem_stride to 2)",
        "a.yaml:8: unknown key epochs (did you mean training.epochs?)",
        "--set training.ema=2: training.ema must be at most 0.999999 or null, got 2",
    ]


def test_a_rule_over_several_keys_is_silent_where_one_of_them_is_wrong_itself(mistakes):
    text = (
        "data: {train: a.h5}\nmodel: {backbone: {max_stride: 48, stem_stride: 2, output_stride: "
        "3}}\n"
    )
    assert [line.split(" got ")[1] for line in mistakes(text).splitlines()] == [
        "48 (nearest: 32, 64)",
        "3 (nearest: 2, 4)",
    ]


def test_a_long_value_is_shortened_on_one_line(mistakes):
    text = f'data: {{train: a.h5}}\ntraining: {{optimizer: "{"x" * 500}\\n"}}\n'
    assert (
        mistakes(text) == f'a.yaml:2: training.optimizer must be adam or sgd, got "{"x" * 156}...'
    )


def _leaves(schema, definition, path=()):
    for name, field in definition["properties"].items():
        if "$ref" in field:
            yield from _leaves(schema, schema["$defs"][field["$ref"].split("/")[-1]], (*path, name))
        else:
            yield ".".join((*path, name))


ODD_VALUES = [
    None,
    True,
    -1,
    0,
    3,
    10**30,
    0.5,
    float("nan"),
    "",
    "x",
    "~",
    [],
    [None],
    [1, {}],
    {},
    {"a": [1]},
]
KEYS = list(_leaves(config_json_schema(), config_json_schema()))


@pytest.mark.parametrize("key", KEYS)
def test_no_value_of_a_key_gives_anything_but_a_config_or_a_config_error(tmp_path, key):
    path = tmp_path / "a.yaml"
    path.write_text("data: {train: a.h5}\n")
    for value in ODD_VALUES:
        override = f"{key}={json.dumps(value).replace('NaN', '.nan')}"
        try:
            load_config(path, [override])
        except ConfigError as error:
            assert key in str(error), override  # noqa: PT017 - either outcome is right


def _numeric(section, path=()):
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _numeric(field.annotation, (*path, name))
        elif re.search(r"\b(int|float)\b", repr(field.annotation)):
            yield ".".join((*path, name))


NUMERIC = list(_numeric(Config))


def test_numeric_keys_are_found():
    assert {"data.image_shape", "augmentation.gamma", "training.ema", "checkpoint.keep"} <= set(
        NUMERIC
    )
    assert not {"training.xla", "output.run_dir", "data.group_by"} & set(NUMERIC)


@given(
    key=st.sampled_from(NUMERIC),
    value=st.sampled_from([1e30, 10**30, -1e30, 1.7e308, 10**4000]),
    form=st.sampled_from(
        ["{}", "[{}, {}]", "[0, {}]", "[1, {}]", "[{}, 0]", "[{}, {}, 1]", "[8, {}, 3]"]
    ),
)
@settings(max_examples=2000)
def test_no_number_is_too_large_to_be_refused(tmp_path_factory, key, value, form):
    path = tmp_path_factory.getbasetemp() / "huge.yaml"
    path.write_text("data: {train: a.h5}\n")
    with pytest.raises(ConfigError, match=re.escape(key)):
        load_config(path, [f"{key}={form.format(value, value)}"])


@given(
    key=st.sampled_from(NUMERIC),
    value=st.sampled_from([1e-30, 1e-300, 5e-324, -1e-30, -5e-324]),
    form=st.sampled_from(["{}", "[{}, {}]", "[0, {}]", "[{}, 1]", "[{}, {}, 1]", "[8, {}, 3]"]),
)
@settings(max_examples=2000)
def test_no_number_is_too_small_to_be_refused(tmp_path_factory, key, value, form):
    path = tmp_path_factory.getbasetemp() / "tiny.yaml"
    path.write_text("data: {train: a.h5}\n")
    with pytest.raises(ConfigError, match=re.escape(key)):
        load_config(path, [f"{key}={form.format(value, value)}"])


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("model.head.sigma_px=1e-30", "must be at least 0.1, got 1e-30"),
        ("training.learning_rate=1e-300", "must be at least 1e-10, got 1e-300"),
        ("training.min_learning_rate=1e-300", "must be 0 or at least 1e-12, got 1e-300"),
        ("training.weight_decay=1e-30", "must be 0 or at least 1e-12, got 1e-30"),
        ("training.gradient_clip_norm=1e-30", "must be at least 1e-06 or null, got 1e-30"),
        ("training.ema=1e-30", "must be at least 1e-06 or null, got 1e-30"),
        ("training.ema=0.99999999", "must be at most 0.999999 or null, got 0.99999999"),
        ("model.head.loss_weight=1e-30", "must be at least 1e-06, got 1e-30"),
        ("data.input_scale=1e-9", "must be at least 0.01, got 1e-09"),
        ("data.validation=1e-300", "must be from 1e-06 to 0.999999, got 1e-300"),
        ("augmentation.noise_std=1e-30", "must be 0 or at least 0.0001, got 1e-30"),
        (
            "augmentation.scale=[1e-9, 1e-9]",
            "must have both ends at least 0.01, got [1e-09, 1e-09] (null turns it off)",
        ),
        (
            "augmentation.gamma=[1e-30, 1]",
            "must have both ends at least 0.01, got [1e-30, 1] (null turns it off)",
        ),
        (
            "augmentation.blur_sigma_px=[1e-30, 1e-30]",
            "must have both ends 0 or at least 0.001 away from it, got [1e-30, 1e-30] (null turns "
            "it off)",
        ),
        (
            "augmentation.contrast=[1e-30, 1]",
            "must have both ends 0 or at least 0.001 away from it, got [1e-30, 1] (null turns it "
            "off)",
        ),
        (
            "augmentation.rotation_deg=[-1e-30, 3]",
            "must have both ends 0 or at least 0.0001 away from it, got [-1e-30, 3] (null turns it "
            "off)",
        ),
    ],
)
def test_a_number_that_is_too_small_is_named_with_the_least(tmp_path, override, text):
    path = tmp_path / "a.yaml"
    path.write_text("data: {train: a.h5}\n")
    with pytest.raises(ConfigError) as raised:
        load_config(path, [override])
    assert str(raised.value).endswith(f"{override.partition('=')[0]} {text}")
