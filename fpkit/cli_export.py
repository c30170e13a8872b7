"""The verb of the command line that takes an extractor to other programs: ``export-onnx``."""

from __future__ import annotations

import argparse

from fpkit.cli_io import Verbs, add_verb, print_json


def add_to(verbs: Verbs) -> None:
    """Declare ``export-onnx``."""
    parser = add_verb(
        verbs,
        "export-onnx",
        export,
        "write the extractor as ONNX, from crops to embeddings, checked against torch",
        example="fpkit export-onnx extractor.onnx",
    )
    parser.add_argument("out", metavar="OUT.onnx", help="file to make or replace")
    parser.add_argument("--extractor", metavar="FOLDER", help="a trained extractor (fpkit's own)")
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")

    def check(arguments: argparse.Namespace) -> None:
        if not arguments.out.lower().endswith(".onnx"):
            parser.error(f"the file must end in .onnx, got {arguments.out}")

    parser.set_defaults(check=check)


def export(arguments: argparse.Namespace) -> int:
    """Write an extractor as ONNX."""
    from fpkit.extractor import load_extractor
    from fpkit.onnx_export import export_onnx

    extractor = load_extractor(arguments.extractor)
    try:
        result = export_onnx(extractor, arguments.out)
    except (ModuleNotFoundError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    if arguments.json:
        print_json(
            {
                "out": str(result.path),
                "bytes": result.size,
                "opset": result.opset,
                "hash": extractor.hash,
                "difference": result.difference,
                "images": result.images,
            }
        )
    else:
        print(f"{result.path}: extractor {extractor.hash[:12]}, {result.size / 1e6:.1f} MB")
        print(
            f"largest difference between ONNX Runtime and torch: {result.difference:.2g} "
            f"({result.images} images)"
        )
    return 0
