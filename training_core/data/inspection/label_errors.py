"""Likely label errors and the hardest examples, from given labels and out-of-fold probabilities.

Confident learning (Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class LabelErrors:
    """`rows` index the images given, most suspicious first; `suggested` are the labels the model is confident of.

    `self_confidence` is the probability of the given label, `margin` that probability less the highest other one
    (-1 to 1, the lower the worse), `probability` that of the suggested label. All stand beside `rows`.
    """

    rows: Rows
    suggested: Rows
    self_confidence: Values
    margin: Values
    probability: Values


def label_errors(labels: NDArray[np.int64], probabilities: NDArray[np.floating]) -> LabelErrors:
    """Images whose given label the model confidently contradicts, as many as the estimated noise holds.

    `labels` are `(images,)` integers, `probabilities` `(images, classes)`, each row predicted by a model that has not
    trained on that image. The confident joint says how many images labelled i truly are j; that many of them, those
    with the largest p_j - p_i, are likely errors ("prune by noise rate", section 3.2 of the paper), unless the model
    predicts the given label after all. The suggested label is the predicted one.
    """
    every = np.arange(len(labels))
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    predicted = np.where(counts > 0, probabilities, -1.0).argmax(axis=1)
    by_label = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    noise = _whole(estimated_joint(labels, probabilities))
    likely = np.zeros(len(labels), np.bool_)
    for given, true in np.argwhere(noise):
        if given != true:
            members = by_label[given]
            lead = probabilities[members, true] - probabilities[members, given]
            likely[members[np.argsort(-lead, kind="stable")[: noise[given, true]]]] = True
    errors = np.flatnonzero(likely & (predicted != labels))
    own = probabilities[every, labels].astype(np.float64)
    margins = margin(labels, probabilities)
    errors = errors[np.lexsort((errors, own[errors], margins[errors]))]
    suggested = predicted[errors]
    return LabelErrors(
        errors, suggested, own[errors], margins[errors], probabilities[errors, suggested].astype(np.float64)
    )


def estimated_joint(labels: NDArray[np.int64], probabilities: NDArray[np.floating]) -> Values:
    """`(classes, classes)` images by given and true label, each row summing to the images given that label.

    An image counts as truly j when its probability of j reaches the class's threshold (eq. 1 and 2 of the paper);
    among several such classes the most probable wins, and an image without one does not count.
    """
    classes = probabilities.shape[1]
    confident = np.where(probabilities >= class_thresholds(labels, probabilities) - 1e-6, probabilities, -1.0)
    counted = confident.max(axis=1, initial=-1.0) >= 0
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[counted], confident[counted].argmax(axis=1)), 1)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1))
    counts = np.bincount(labels, minlength=classes)[:, None]
    return np.asarray(joint / joint.sum(axis=1, keepdims=True) * counts)


def _whole(joint: Values) -> Rows:
    """Whole numbers with the same sums of rows: the largest fractions are rounded up."""
    whole = np.floor(joint).astype(np.int64)
    missing = np.rint((joint - whole).sum(axis=1)).astype(np.int64)
    rank = np.argsort(np.argsort(whole - joint, axis=1, kind="stable"), axis=1, kind="stable")
    return np.asarray(whole + (rank < missing[:, None]))


def class_thresholds(labels: NDArray[np.int64], probabilities: NDArray[np.floating]) -> Values:
    """Mean probability of each class over the images labelled with it; 1.1, out of reach, without any."""
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    own = probabilities[np.arange(len(labels)), labels]
    sums = np.bincount(labels, weights=own, minlength=classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), 1.1)


def margin(labels: NDArray[np.int64], probabilities: NDArray[np.floating]) -> Values:
    """Probability of the given label less the highest other probability, -1 to 1."""
    every = np.arange(len(labels))
    own = probabilities[every, labels].astype(np.float64)
    others = probabilities.astype(np.float64)
    others[every, labels] = -np.inf
    margins: Values = own - others.max(axis=1)
    return margins


def hardest(labels: NDArray[np.int64], probabilities: NDArray[np.floating], count: int) -> Rows:
    """The `count` images with the highest cross-entropy of their given label, hardest first."""
    own = probabilities[np.arange(len(labels)), labels]
    return np.argsort(own, kind="stable")[:count]
