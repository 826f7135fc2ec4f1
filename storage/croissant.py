"""Croissant 1.1: a dataset's metadata as JSON-LD, as dataset search engines and `mlcroissant` read it.

Every Parquet file is a FileObject with its SHA-256; together they are one FileSet, whose columns are the fields of the
record set `clips`. It is written without any library; `mlcroissant`, where it is installed, checks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from motionsynth.errors import InputError
from storage.header import Header
from storage.schema import arrow_schema

CROISSANT = "croissant.json"
PARQUET = "application/x-parquet"
_CR = (
    "arrayShape", "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet",
    "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet",
    "references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in _CR},
}
MEANING = {
    "sample_id": "Unique within the dataset.",
    "label": "Class index, from 0.",
    "label_name": "Class name.",
    "motion": "Joint positions: persons, frames, joints, xyz; metres, y up, right-handed; an absent person is zeros.",
    "num_persons": "Length of the first axis of motion.",
    "num_frames": "Length of the second axis of motion.",
    "fps": "Frames per second.",
    "skeleton": "Name of the skeleton; joints and parents stand in skeleton.json.",
    "dataset": "The dataset that the clip comes from, or imitates.",
    "subject": "Who is seen.",
    "view": "Which camera saw them.",
    "repetition": "Which take.",
    "source": "real or synthetic.",
    "parent_id": "sample_id of the real clip that a synthetic one derives from; several are joined by +.",
    "generator": "What made a synthetic clip.",
    "checkpoint": "Its weights.",
    "seed": "Seed of the clip.",
    "class_confidence": "Probability that recognisers which never saw the clip's source give to its label.",
    "physics_violation": "Largest plausibility figure by its limit; above 1 it is implausible.",
    "novelty": "Distance to the nearest real clip of the class between the class's limits: below 0 a copy.",
    "accepted": "false: refused by a filter; empty counts as accepted.",
    "rejected_by": "The rules that refused it, joined by +.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """One published file: its key, its size in bytes, and its SHA-256."""

    key: str
    bytes: int
    sha256: str


def croissant(
    header: Header, files: Sequence[File], *, name: str, description: str, licence: str, cite: str, version: str,
    url: str = "", date: str = "", biases: str = "",
) -> dict[str, Any]:  # fmt: skip
    """The metadata as a JSON object.

    Args:
        header: Of the dataset.
        files: Its Parquet files, below `data/`.
        name, description: For people.
        licence: Address of a licence, or a sentence.
        cite: How to cite it.
        version: Of the dataset, such as 1.0.0.
        url: Where it will lie; "" while nobody knows.
        date: Of publication, ISO 8601; "" leaves it out.
        biases: Known biases, in words.
    """
    fields = [_field(f, header) for f in arrow_schema(header)]
    optional = {"url": url, "datePublished": date, "rai:dataBiases": biases}
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": name,
        "description": description,
        "license": licence,
        "citeAs": cite,
        "version": version,
        **{k: v for k, v in optional.items() if v},
        "distribution": [
            {
                "@type": "cr:FileSet",
                "@id": "parquet-files",
                "name": "parquet-files",
                "description": "All clips, one row each.",
                "encodingFormat": PARQUET,
                "includes": "data/*.parquet",
            },
            *(
                {
                    "@type": "cr:FileObject",
                    "@id": f.key,
                    "name": f.key,
                    "contentUrl": f.key,
                    "contentSize": f"{f.bytes} B",
                    "encodingFormat": PARQUET,
                    "sha256": f.sha256,
                }
                for f in files
            ),
        ],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "clips", "name": "clips", "field": fields}],
    }


def _field(column: pa.Field, header: Header) -> dict[str, Any]:
    shape = {}
    kind = _data_type(column.type)
    if column.name == "motion":
        kind = "cr:Float32"
        shape = {"isArray": True, "arrayShape": f"-1,-1,{header.skeleton.num_joints},3"}
    return {
        "@type": "cr:Field",
        "@id": f"clips/{column.name}",
        "name": column.name,
        "description": MEANING[column.name],
        "dataType": kind,
        **shape,
        "source": {"fileSet": {"@id": "parquet-files"}, "extract": {"column": column.name}},
    }


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_string(kind):
        return "sc:Text"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    return "sc:Integer" if pa.types.is_integer(kind) else "sc:Float"


def check_croissant(metadata: Mapping[str, Any]) -> bool:
    """Validate with `mlcroissant`; whether it is installed.

    Raises:
        InputError: it finds an error.
    """
    try:
        import mlcroissant
    except ImportError:
        return False
    try:
        mlcroissant.Dataset(dict(metadata))
    except mlcroissant.ValidationError as e:
        raise InputError(
            f"The Croissant metadata is not valid ({' '.join(str(e).split())}); mend the dataset's header."
        ) from None
    return True
