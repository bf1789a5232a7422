"""Top-1 accuracy."""

import numpy as np


class Top1:
    """Share of the images whose predicted class is theirs, over all classes at once."""

    name = "top1"
    label = "top-1"
    arrays = ("predicted", "label")

    def per_class(self, predictions, weights):
        """One row: the share of right images under every weighting."""
        right = predictions["predicted"] == predictions["label"]
        return (right.astype(float) @ weights / weights.sum(0))[None]

    def classes(self, predictions):
        """All classes together."""
        return ["all"]

    def ground_truth(self, predictions):
        """The labels."""
        return [np.asarray(predictions["label"])]
