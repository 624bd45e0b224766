"""Each thing that a config can ask for, for a step."""

import numpy as np
import pytest
from tiny_run import fit, rows_of, without_times

from hgtrain.errors import RunError

pytestmark = [
    pytest.mark.slow,
    # Keras's own, each time it saves a variable.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


OPTIONS = [
    ["training.ema=0.9"],
    ["training.hard_keypoint_mining=true"],
    [
        "training.schedule=plateau",
        "training.plateau_patience_epochs=1",
        "training.early_stopping_epochs=1",
    ],
    ["training.gradient_clip_norm=0.5"],
    ["training.precision=mixed_bfloat16"],
    ["training.precision=mixed_float16"],
    ["training.optimizer=sgd", "training.learning_rate=1e-5", "training.weight_decay=0.01"],
    ["training.batch_size=32"],
    ["training.batch_size=2", "training.accumulate_steps=4"],
    ["training.recompute=true"],
    ["data.input_scale=0.5"],
    ["data.channels=3"],
    ["augmentation.flip=both"],
    [
        "augmentation.gamma=[0.5,2]",
        "augmentation.noise_std=0.1",
        "augmentation.blur_sigma_px=[0,1]",
    ],
    ["model.backbone.max_stride=64"],
]


@pytest.mark.parametrize("keys", OPTIONS, ids=" ".join)
def test_a_step_works_with(keys, config_file, tmp_path):
    small = [
        "training.epochs=1",
        "training.steps_per_epoch=1",
        "model.backbone.stacks=1",
        "output.tensorboard=false",
    ]
    fast = ["training.min_learning_rate=0", "training.deterministic=false"]
    _, evaluation = fit(config_file, tmp_path / "run", *small, *fast, *keys)
    (row,) = rows_of(tmp_path / "run")
    assert np.isfinite([row["loss"], row["val_loss"], row["val_error_px"]]).all()
    # In pixels of the dataset's images: at most the diagonal of 32 x 32 or 16 px beyond.
    assert 0 < evaluation["error_px"]["mean"] < 50


def test_where_frames_are_kept_changes_nothing(config_file, tmp_path):
    rows = []
    for cache in ("device", "ram", "none"):
        fit(
            config_file,
            tmp_path / cache,
            f"data.cache={cache}",
            "training.epochs=1",
            "model.backbone.stacks=1",
        )
        rows.append(without_times(rows_of(tmp_path / cache)))
    assert rows[0] == rows[1] == rows[2]


def test_a_learning_rate_that_is_too_high_is_said_to_be(config_file, tmp_path):
    with pytest.raises(
        RunError,
        match=r"not finite at step \d, of the frames .*: .*lower training.learning_rate \(now "
        r"1000000.0\)",
    ):
        fit(config_file, tmp_path / "run", "training.learning_rate=1e6", "training.optimizer=sgd")
    assert not (tmp_path / "run" / "evaluation.json").exists()
