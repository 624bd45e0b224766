"""From images to keypoints, and the files that hold them."""
