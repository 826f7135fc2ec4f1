"""May clips be passed on to others? Decided by the terms of the datasets that they come from.

What a generator made of clips stands under the terms of these clips: it shows the same people. A dataset of several
sources inherits the strictest of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from motionsynth.datasets import DATASETS, DatasetInfo
from motionsynth.datasets.ntu import NAME
from motionsynth.errors import InputError

STRICTNESS = ("allowed", "unstated", "forbidden")


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """Under what clips may be passed on.

    Attributes:
        licence: SPDX identifier; "" where a right is claimed and no licence was named.
        sources: The known datasets that the clips come from.
        own: Names of the others: somebody's own data.
        right: Why the publisher may pass on what the terms do not allow, in their own words; "" where none is needed.
    """

    licence: str
    sources: tuple[DatasetInfo, ...]
    own: tuple[str, ...]
    right: str


def known_source(name: str, sample_ids: Iterable[str] = ()) -> DatasetInfo | None:
    """The dataset whose terms hold for real clips, None for somebody's own.

    Args:
        name: Of the dataset, as the clips have it.
        sample_ids: Of the clips. Where all are file names of NTU RGB+D they are its clips, whatever they are called.
    """
    if name in DATASETS:
        return DATASETS[name]
    ids = list(sample_ids)
    return DATASETS["ntu120"] if ids and all(re.fullmatch(NAME, i) for i in ids) else None


def grant(
    what: str, known: Sequence[DatasetInfo], own: Sequence[str], licence: str = "", right: str = ""
) -> Grant:
    """Whether clips of these sources may be published, and under what.

    Args:
        what: What is to be published, for the message: "The 40 clips of 'data/mine'".
        known: Datasets whose terms are known.
        own: Names of the others.
        licence: SPDX identifier that the publisher chose; needed for `own`.
        right: The publisher's reason why they may pass on clips whose terms do not say so.

    Raises:
        InputError: the terms of a source forbid it (whatever the reason), do not allow it (without a reason), a source
            is unknown and no licence is given, or the licence is no SPDX expression.
    """
    chosen = spdx(licence) if licence else ""
    right = " ".join(right.split())
    for info in sorted(known, key=lambda i: -STRICTNESS.index(i.redistribution)):
        rests = f"{what} cannot be published, because they are or derive from clips of {info.title} ('{info.name}')"
        if info.redistribution == "forbidden":
            raise InputError(
                f'{rests}, whose terms forbid it: "{info.terms}"; publish scores and code, or leave those clips out.'
            )
        if info.redistribution == "unstated" and not right:
            raise InputError(
                f'{rests}, whose terms do not allow it: "{info.terms}"; if you have the right to, say why with '
                '--i-have-the-right "REASON", which the card will quote.'
            )
    if own and not chosen:
        raise InputError(
            f"{what} come from '{own[0]}', of which no terms are known; say under which licence you publish it with "
            "--license SPDX, such as CC-BY-4.0."
        )
    licences = {info.licence for info in known}
    if not chosen and len(licences) == 1:
        (chosen,) = licences
    if not chosen and not right:
        raise InputError(
            f"{what} have sources with several licences ({', '.join(sorted(licences))}); choose one with --license."
        )
    return Grant(licence=chosen, sources=tuple(known), own=tuple(own), right=right)


def spdx(licence: str) -> str:
    """An SPDX licence expression in its canonical spelling.

    Raises:
        InputError: it is none.
    """
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return str(canonicalize_license_expression(licence))
    except InvalidLicenseExpression:
        raise InputError(
            f"'{licence}' is no SPDX licence identifier; give one such as CC-BY-4.0, CC0-1.0 or PDDL-1.0, or "
            "LicenseRef-NAME for terms of your own."
        ) from None
