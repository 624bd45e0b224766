"""The README.md of an exported model: how to use it where there is no hgtrain."""

from typing import Any

_SAVEDMODEL = """\
import numpy as np
import tensorflow as tf

model = tf.saved_model.load("{folder}")  # this folder
predict = model.signatures["serving_default"]
# (frames, height, width, channels), 0..255
frames = np.zeros((2, {height}, {width}, {channels}), np.uint8)
found = predict(image=tf.constant(frames))
print(found["keypoints"].shape, found["confidence"].shape)
maps = model.signatures["confmaps"](image=tf.constant(frames))["confmaps"]"""

_TFLITE = """\
import numpy as np
import tensorflow as tf  # or: from ai_edge_litert.interpreter import Interpreter

predict = tf.lite.Interpreter("{folder}/{file}").get_signature_runner()
# (frames, height, width, channels), 0..255
frames = np.zeros((2, {height}, {width}, {channels}), np.uint8)
found = predict(image=frames)
print(found["keypoints"].shape, found["confidence"].shape)"""

_ONNX = """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{folder}/model.onnx")
# (frames, height, width, channels), 0..255
frames = np.zeros((2, {height}, {width}, {channels}), np.uint8)
keypoints, confidence = session.run(["keypoints", "confidence"], {{"image": frames}})
print(keypoints.shape, confidence.shape)"""

_USE = {"savedmodel": _SAVEDMODEL, "tflite": _TFLITE, "onnx": _ONNX}

_PAGE = """\
# {folder}

A network that finds {what} in an image, written by hgtrain. It needs no
hgtrain:

```python
{code}
```

- `image`: uint8 `(frames, {sides}, {channels})`{at_least}.
{outputs}

Resizing, padding and finding the peaks to a fraction of a pixel are part of the model.

Keypoints, in this order: {names}.

`metadata.json` has the skeleton, the config of the training, its evaluation and versions, and this
check of what was written against the predictions it was trained to:

{check}
"""

_ONE_ANIMAL = """\
- `keypoints`: float32 `(frames, {count}, 2)`, x then y in pixels of that image, pixel centres at
  integers.
- `confidence`: float32 `(frames, {count})`, 0 to 1."""

_ANIMALS = """\
- `keypoints`: float32 `(frames, {animals}, {count}, 2)`, x then y in pixels of that image, pixel
  centres at integers. The best animal of a frame comes first; what was not found is NaN: a keypoint
  of an animal, and all of it where a frame has fewer than {animals} animals.
- `confidence`: float32 `(frames, {animals}, {count})`, 0 to 1, NaN as the keypoints.
- `instance_score`: float32 `(frames, {animals})`, 0 to 1, of each animal; NaN where none is."""


def readme(folder: str, metadata: dict[str, Any]) -> str:
    """Return the page for an export.

    Args:
        folder: What the export's folder is called.
        metadata: The export's metadata.json.
    """
    _, height, width, channels = metadata["input"]["shape"]
    fixed = height is not None
    example = (height, width) if fixed else metadata["image_shape"][:2]
    code = _USE[metadata["format"]].format(
        folder=folder,
        file=metadata["files"][0],
        height=example[0],
        width=example[1],
        channels=channels,
    )
    *animals, count, _ = metadata["outputs"]["keypoints"][1:]
    what = f"{count} keypoints of one animal"
    outputs = _ONE_ANIMAL.format(count=count)
    if animals:
        what = f"up to {animals[0]} animals, {count} keypoint{'s' * (count > 1)} each,"
        outputs = _ANIMALS.format(count=count, animals=animals[0])
    return _PAGE.format(
        folder=folder,
        code=code,
        what=what,
        outputs=outputs,
        # Its own convolutions fail on none, and what would keep them from it makes the others slow.
        at_least=", of at least one frame" if metadata["format"] == "tflite" else "",
        sides=f"{height}, {width}" if fixed else "any height, any width",
        channels=channels,
        names=", ".join(metadata["keypoint_names"]),
        check="\n".join(f"- {line}" for line in check_lines(metadata["check"])),
    )


def check_lines(checks: list[dict[str, Any]]) -> list[str]:
    """Return a sentence for each file that was checked."""
    lines = []
    for check in checks:
        if "problem" in check:
            lines.append(check["problem"])
            continue
        parts = []
        if "keypoints_px" in check:
            parts.append(
                f"positions differ by at most {check['keypoints_px']:.2g} px from the run's, "
                "confidence by "
                f"{check['confidence']:.2g}"
            )
        if check.get("ties"):
            why = (
                "that rounding decides on" if "animals" in check else "with two equally high peaks"
            )
            parts.append(f"{check['ties']} keypoints {why} are left out")
        if "animals" in check:
            parts.append(f"{check['animals']} animals, the run's {check['run_animals']}")
        if check["error_px"] is not None:
            parts.append(
                f"mean error {check['error_px']:.2f} px, the run's {check['run_error_px']:.2f} px"
            )
        lines.append(f"{check['file']}: {'; '.join(parts) or 'runs'} ({check['frames']} frames)")
    return lines
