"""Measure the fingerprints of real generators: figures that ship instead of images.

    python data/realworld/measure.py FOLDER --out data/realworld

FOLDER holds one folder of images per model and a manifest.csv with the columns model, file,
family, decoder, content, format, repo, source, licence. Two minutes for 1350 images on one core.
"""

import argparse

from fpkit.realworld import measure_fingerprints, save_fingerprints


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--out", required=True, metavar="DIR")
    arguments = parser.parse_args()
    fingerprints = measure_fingerprints(arguments.folder, progress=True)
    save_fingerprints(
        arguments.out,
        fingerprints,
        source="images that others published, see repo and sources of each model; "
        "family 'photo' are untouched photographs",
    )
    images = sum(fingerprint.images for fingerprint in fingerprints)
    print(f"{len(fingerprints)} models, {images} images -> {arguments.out}")


if __name__ == "__main__":
    main()
