"""Each finding in plain words: what it is, and why it matters."""

from __future__ import annotations

MEANINGS = {
    "corrupt": "The file begins like an image, and its content is damaged.",
    "truncated": "The file ends before the image does, often because an upload or a download was cut off.",
    "wrong_type": "The file is not an image of a supported type, whatever its name says.",
    "bomb": "The image unpacks to far more pixels than any real photograph; decoding it could exhaust the memory.",
    "empty": "The file, or the image in it, holds nothing.",
    "animated": "The file holds several frames, and it is unclear which of them the label describes.",
    "unreadable": "The sample is listed, and its content could not be read.",
    "exact_duplicates": "Copies of an image in the same split. They give one image more weight and teach nothing.",
    "near_duplicates": "The same picture, saved, scaled, cut or brightened again. It weighs more than others.",
    "leakage": "Images that also stand in an evaluation split. The model would be graded on what it has memorised, "
    "and look better than it is.",
    "conflicting_labels": "The very same image under different labels. At most one of them can be right.",
    "blurred": "Hardly any edge is sharp. If such images do not occur in use, they teach the wrong thing.",
    "dark": "Almost the whole image is nearly black.",
    "bright": "Almost the whole image is nearly white.",
    "low_information": "The image is almost of one tone, and there is little to learn from.",
    "odd_size": "Much larger or smaller than the other images; often a thumbnail, a scan or a file from elsewhere.",
    "odd_aspect": "Much wider or taller than the other images; cutting it to a square loses most of it.",
    "label_errors": "A model that has not seen the image is confident of another label.",
    "hardest_examples": "The given label seemed least likely to a model that has not seen the image: rare or wrong.",
}
