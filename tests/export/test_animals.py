"""Exports of networks for several animals: what is checked, and what is said of them."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import hgtrain.export.formats
from hgtrain.errors import RunError
from hgtrain.export.animals import compare_animals
from hgtrain.export.check import Sample
from hgtrain.export.export import export
from hgtrain.export.readme import check_lines
from hgtrain.export.served import ExportedFile, Tolerance
from hgtrain.heads.multi_instance import MultiInstance
from hgtrain.pipeline.preprocess import Preprocessing
from hgtrain.poses import Poses
from hgtrain.predict.predictor import Predictor
from hgtrain.predict.saved_model import SavedModelPredictor

# Keras's saving and NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

METADATA = {"keypoint_names": ["spot"], "edges": [], "symmetries": [], "image_shape": (32, 32, 1)}
SPOTS = {(8, 8): 250, (24, 8): 200, (16, 24): 100}
"""Brightness of each spot of the image, by x and y px."""


def spot_predictor(threshold: float) -> Predictor:
    """Return what finds each bright spot as an animal of one keypoint, its map the image
    smoothed."""
    image = keras.Input((None, None, 1), name="input")
    x = layers.Rescaling(1 / 255)(image)
    maps = layers.Conv2D(1, 5, padding="same", use_bias=False, name="MultiInstanceConfmapsHead")(x)
    model = keras.Model(image, maps)
    line = np.exp(-(np.arange(-2, 3) ** 2) / 2)
    model.layers[-1].set_weights([np.outer(line, line)[:, :, None, None]])
    head = MultiInstance(1, (), 1, 1.0, 4.0, max_instances=4, peak_threshold=threshold)
    return Predictor(model, head, Preprocessing(1, 1.0, multiple=1), batch_size=2)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """An image of three spots, and one of none."""
    images = np.zeros((2, 32, 32, 1), np.uint8)
    for (x, y), height in SPOTS.items():
        images[0, y, x] = height
    return images


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return spot_predictor(0.2)


@pytest.fixture(scope="module")
def sample(images: np.ndarray) -> Sample:
    points = np.full((2, 3, 1, 2), np.nan, np.float32)
    points[0, :, 0] = list(SPOTS)
    return Sample(images, points, images[:1], lambda found: Poses(*(x[:, :3] for x in found)))


def test_the_spots_are_found_best_first(predictor: Predictor, images: np.ndarray) -> None:
    found = predictor(images)
    np.testing.assert_allclose(found.points[0, :3, 0], list(SPOTS), atol=1e-3)
    assert np.isfinite(found.scores).sum(1).tolist() == [3, 0]


def changed(found: Poses, order: list[int], lost: tuple[int, ...] = ()) -> Poses:
    """Return what was found in another order, without some animals of the first frame."""
    found = Poses(*(part.copy() for part in found))
    for part in found:
        part[0, list(lost)] = np.nan
    return Poses(*(part[:, order] for part in found))


def test_the_order_of_animals_does_not_count(predictor: Predictor, images: np.ndarray) -> None:
    run = predictor(images)
    found = compare_animals(predictor, images, run, changed(run, [2, 3, 0, 1]))
    assert found == {"keypoints_px": 0, "keypoints_p95_px": 0, "confidence": 0, "ties": 0}


def test_positions_and_scores_are_compared_animal_by_animal(
    predictor: Predictor, images: np.ndarray
) -> None:
    run = predictor(images)
    other = changed(run, [1, 0, 2, 3])
    other.points[0, 0, 0, 1] += 0.25
    other.scores[0, 2] -= 0.125
    found = compare_animals(predictor, images, run, other)
    assert (found["keypoints_px"], found["confidence"]) == (0.25, 0.125)


@pytest.mark.parametrize("lost", [0, 2])
def test_an_animal_that_the_run_alone_finds_is_a_difference(
    predictor: Predictor, images: np.ndarray, lost: int
) -> None:
    run = predictor(images)
    found = compare_animals(predictor, images, run, changed(run, [0, 1, 2, 3], (lost,)))
    assert (found["keypoints_px"], found["ties"]) == (np.inf, 0)


def test_an_animal_that_the_run_does_not_find_is_a_difference(
    predictor: Predictor, images: np.ndarray
) -> None:
    run = predictor(images)
    more = changed(run, [3, 0, 1, 2])
    for part, value in zip(more, (np.float32([20, 4]), 0.5, 0.5), strict=True):
        part[0, 0] = value
    found = compare_animals(predictor, images, run, more)
    assert (found["keypoints_px"], found["ties"]) == (np.inf, 0)


def test_a_peak_within_rounding_of_the_threshold_may_be_found_or_not(images: np.ndarray) -> None:
    # The faintest spot is as high as the threshold, to a bit or two.
    height = float(np.float32(SPOTS[16, 24] / 255))
    above, below = (spot_predictor(height + 3e-8 * side) for side in (-1, 1))
    all_found, two_found = above(images), below(images)
    assert [np.isfinite(each.scores[0]).sum() for each in (all_found, two_found)] == [3, 2]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        for predictor, run, other in (
            (above, all_found, two_found),
            (below, two_found, all_found),
        ):
            found = compare_animals(predictor, images, run, changed(other, order))
            assert (found["keypoints_px"], found["ties"]) == (0, 1)
    # The brightest is not.
    found = compare_animals(above, images, all_found, changed(two_found, [0, 1, 2, 3], (0,)))
    assert (found["keypoints_px"], found["ties"]) == (np.inf, 1)


def test_it_is_written_with_its_axis_of_animals(
    predictor: Predictor, sample: Sample, tmp_path: Path
) -> None:
    (check,) = export(predictor, sample, tmp_path / "spots", "savedmodel", None, METADATA)
    assert check["keypoints_px"] <= 0.005
    assert (check["animals"], check["run_animals"]) == (3, 3)
    assert check["error_px"] == pytest.approx(0, abs=1e-3)
    assert check_lines([check])[0].startswith("SavedModel: positions differ by at most")
    document = json.loads((tmp_path / "spots" / "metadata.json").read_text())
    assert document["outputs"] == {
        "keypoints": [None, 4, 1, 2],
        "confidence": [None, 4, 1],
        "instance_score": [None, 4],
    }
    found = SavedModelPredictor(tmp_path / "spots")(sample.images)
    assert [part.shape for part in found] == [(2, 4, 1, 2), (2, 4, 1), (2, 4)]
    text = (tmp_path / "spots" / "README.md").read_text()
    assert "A network that finds up to 4 animals, 1 keypoint each, in an image" in text
    assert "- `instance_score`: float32 `(frames, 4)`" in text
    assert "3 animals, the run's 3" in text


def loaded_as(monkeypatch: pytest.MonkeyPatch, predict, tolerance: Tolerance | None) -> None:
    """Let the format savedmodel write nothing and be opened as `predict`."""
    file = ExportedFile("a.int8", lambda path: predict, tolerance)
    written = hgtrain.export.formats.Format(
        lambda served, folder, calibration: [file], needs_size=False
    )
    monkeypatch.setitem(hgtrain.export.formats.FORMATS, "savedmodel", written)


@pytest.mark.parametrize(
    ("change", "tolerance", "message"),
    [
        (
            lambda found: changed(found, [0, 1, 2, 3], (1,)),
            Tolerance(0.01, 1e-4),
            r"a.int8 does not predict what the run predicts: positions differ by up to inf px",
        ),
        (
            lambda found: found._replace(points=found.points * np.nan),
            None,
            r"a.int8 predicts positions that are not numbers",
        ),
        (
            lambda found: Poses(*(part * np.nan for part in found)),
            None,
            r"a.int8 finds none of the 3 animals that the run finds",
        ),
    ],
)
def test_what_finds_other_animals_is_not_exported(
    predictor: Predictor,
    sample: Sample,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change,
    tolerance: Tolerance | None,
    message: str,
) -> None:
    loaded_as(monkeypatch, lambda images: change(predictor(images)), tolerance)
    with pytest.raises(RunError, match=message):
        export(predictor, sample, tmp_path / "out", "savedmodel", None, METADATA)
    assert list(tmp_path.iterdir()) == []


def test_errors_are_those_of_matched_animals(
    predictor: Predictor, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(images: np.ndarray) -> Poses:
        return changed(predictor(images), [1, 0, 2, 3])

    loaded_as(monkeypatch, swapped, None)
    (check,) = export(predictor, sample, tmp_path / "out", "savedmodel", None, METADATA)
    # Without places that know it, two of the three are 16 px off.
    assert check["error_px"] == pytest.approx(2 * 16 / 3, abs=1e-3)
    assert check["run_error_px"] == pytest.approx(0, abs=1e-3)
