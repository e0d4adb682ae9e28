"""Confident learning, on the paper's rules worked out by hand and on noisy labels."""

from __future__ import annotations

import numpy as np
import pytest

from training_core.data.inspection.label_errors import class_thresholds, hardest, label_errors, margin

LABELS = np.array([0, 0, 0, 1, 1, 1])
PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.45, 0.55]])


def test_thresholds_are_mean_self_confidences() -> None:
    assert class_thresholds(LABELS, PROBABILITIES) == pytest.approx([0.6, (0.8 + 0.7 + 0.55) / 3])


def test_a_class_without_images_is_never_suggested() -> None:
    probabilities = np.column_stack([PROBABILITIES * 0.01, np.full(6, 0.99)])
    assert class_thresholds(LABELS, probabilities)[2] > 1
    assert 2 not in label_errors(LABELS, probabilities).suggested


def test_the_confidently_contradicted_image_is_found() -> None:
    errors = label_errors(LABELS, PROBABILITIES)
    assert errors.rows.tolist() == [2]
    assert errors.suggested.tolist() == [1]
    assert errors.self_confidence == pytest.approx([0.1])
    assert errors.margin == pytest.approx([-0.8])
    assert errors.probability == pytest.approx([0.9])


def test_a_contradiction_without_confidence_is_none() -> None:
    probabilities = PROBABILITIES.copy()
    probabilities[2] = [0.45, 0.55]
    assert label_errors(LABELS, probabilities).rows.tolist() == []


def test_margins_and_the_hardest() -> None:
    assert margin(LABELS, PROBABILITIES) == pytest.approx([0.8, 0.6, -0.8, 0.6, 0.4, 0.1])
    assert hardest(LABELS, PROBABILITIES, 2).tolist() == [2, 5]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_swapped_labels_are_found_worst_first(dtype: type) -> None:
    random = np.random.default_rng(0)
    true = random.integers(0, 5, 2000)
    noise = random.normal(0, 1, (2000, 5)) + 6 * np.eye(5)[true]
    probabilities = (np.exp(noise) / np.exp(noise).sum(1, keepdims=True)).astype(dtype)
    swapped = random.choice(2000, 100, replace=False)
    labels = true.copy()
    labels[swapped] = (labels[swapped] + random.integers(1, 5, 100)) % 5
    errors = label_errors(labels, probabilities)
    found = set(errors.rows.tolist()) & set(swapped.tolist())
    assert len(found) >= 85
    assert len(errors.rows) <= 110
    assert (np.diff(errors.margin) >= 0).all()
    assert np.mean(errors.suggested == true[errors.rows]) > 0.9


def test_nothing_to_judge() -> None:
    errors = label_errors(np.zeros(0, np.int64), np.zeros((0, 3)))
    assert len(errors.rows) == len(errors.suggested) == len(errors.margin) == 0
