"""Mean class accuracy."""

import numpy as np


class ClassAccuracy:
    """Share of the images of each class whose predicted class is theirs."""

    name = "class_accuracy"
    label = "class accuracy"
    arrays = ("predicted", "label", "classes")

    def per_class(self, predictions, weights):
        """The share of right images of every class under every weighting; nan without any."""
        label = predictions["label"]
        own = label == np.arange(len(predictions["classes"]))[:, None]
        right = (own & (predictions["predicted"] == label)) @ weights
        images = own @ weights
        return np.where(images > 0, right / np.maximum(images, 1), np.nan)

    def classes(self, predictions):
        """The names of the classes."""
        return [str(name) for name in predictions["classes"]]

    def ground_truth(self, predictions):
        """The labels."""
        return [np.asarray(predictions["label"])]
