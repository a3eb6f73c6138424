"""What a data set holds, in numbers: a mapping that JSON takes, of a few kilobytes.

::

    {
      "classes": {                         at most 1000 classes are listed, the first by id
        "train": {"images": [12, 7, …],    by class id: images that show it
                  "objects": [31, 9, …]}   by class id: objects; null of classification and masks
        "val": …, "test": …                only the splits that there are
      },
      "classes_left_out": 0,               how many classes are not listed
      "images_without_objects": {"train": 3, "val": 0},   images without any class or object
      "width": HISTOGRAM, "height": HISTOGRAM,            pixels, of turned images
      "aspect": HISTOGRAM,                 width / height
      "objects_per_image": HISTOGRAM | null,
      "box_size": HISTOGRAM | null         √(box area / image area), 0..1
    }

    HISTOGRAM = {"edges": [e0, …, en], "counts": [c1, …, cn]}
        counts[i] values lie from edges[i] up to below edges[i + 1]; the last bin includes its end.
        Without any value both are empty.
"""

from __future__ import annotations
