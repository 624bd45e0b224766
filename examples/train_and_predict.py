"""Train a network, measure it, find the keypoints of a film, and write it for other programs.

Usage: python examples/train_and_predict.py CONFIG.yaml FILM
"""

import sys

import numpy as np

import hgtrain

config, film = sys.argv[1:]
run = hgtrain.fit(config)
print(f"{run.folder}: mean error {run.evaluate()['error_px']['mean']:.1f} px")

keypoints, confidence = run.predict(film)  # (frames, K, 2) px, (frames, K)
np.savez("film.npz", keypoints=keypoints, confidence=confidence)
print(f"{film}: {len(keypoints)} frames, mean confidence {np.nanmean(confidence):.2f}")

print("for programs without hgtrain:", run.export(run.folder / "export"))
