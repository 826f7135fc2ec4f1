"""A dataset or a checkpoint as a folder that can be uploaded as it is: card, Parquet, Croissant metadata, sums.

    python -m rayjobs.publish --storage out --data sample --out published/sample
    python -m rayjobs.publish --storage out --data runs/tour/sample/BED/motion_gan/synthetic --out published/clips
    python -m rayjobs.publish --storage out --checkpoint runs/tour/sample/BED --out s3://bucket/published/model
    python -m rayjobs.publish --storage out --data mine --license CC-BY-4.0 --out published/mine

What the sources' terms do not allow is refused (see `motionsynth.terms`). It needs no Ray.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from motionsynth.datasets import DATASETS, DatasetInfo
from motionsynth.errors import InputError
from motionsynth.terms import Grant, grant, known_source
from rayjobs import cli
from rayjobs.locate import locate_checkpoint, locate_data
from storage import Storage
from storage.card_parts import About, Making
from storage.checkpoints import read_config
from storage.facts import Facts, read_facts
from storage.publish import makings_of, publish_checkpoint, publish_dataset


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(cli.Common):
    """Write a dataset or a checkpoint as a folder for others.

    Attributes:
        out: The folder: a new or empty one, or s3://bucket/prefix.
        data: A prepared or composed dataset's name, or the prefix of generated or refined clips.
        checkpoint: Prefix of a checkpoint, or of the training that made it; in place of --data.
        license: SPDX licence identifier, such as CC-BY-4.0; needed for own data.
        i_have_the_right: Why you may pass on clips whose terms do not allow it; the card quotes it.
        title: Heading of the card.
        version: Of what is published.
        url: Where it will lie.
        date: Of publication, such as 2026-11-25; without one the same input gives the same bytes.
        copy: Copy the shards byte for byte, even where official splits would be loadable from other files.
        replace: Put it in the place of what was published there before.
    """

    out: str
    data: str = ""
    checkpoint: str = ""
    license: str = ""
    i_have_the_right: str = ""
    title: str = ""
    version: str = "1.0.0"
    url: str = ""
    date: str = ""
    copy: bool = False
    replace: bool = False

    def __post_init__(self) -> None:
        # A dataclass with slots is made anew by its decorator, which super() without arguments does not see.
        cli.Common.__post_init__(self)
        if bool(self.data) == bool(self.checkpoint):
            raise InputError(
                f"publish needs --data or --checkpoint, one of the two; got {'both' if self.data else 'neither'}."
            )
        if self.date and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", self.date):
            raise InputError(f"--date '{self.date}' is no date; write it as 2026-11-25.")

    def about(self, title: str) -> About:
        """What the publisher says; `title` where no other is given."""
        return About(title=self.title or title, version=self.version, url=self.url, date=self.date)


def verb(options: Options) -> dict[str, Any]:
    """Run the command line's wish; see `publish`."""
    result = publish(options.open_storage(), Storage(options.out), options)
    report(result)
    return result


def publish(storage: Storage, out: Storage, options: Options) -> dict[str, Any]:
    """Decide whether it may be published, then write it.

    Raises:
        InputError: there is no such set or checkpoint, its sources' terms do not allow it, or `out` is not empty.
    """
    if options.checkpoint:
        return _checkpoint(storage, out, options)
    prefix = locate_data(storage, options.data)
    facts = read_facts(storage, prefix)
    makings = makings_of(storage, facts, _checkpoints(facts))
    granted = _grant(f"The {facts.manifest.rows:,} clips of '{prefix}'", _ids(facts, makings), options)
    out.check()
    made = publish_dataset(
        storage,
        prefix,
        facts,
        granted,
        out,
        options.about(_title(facts)),
        makings=makings,
        scores=_scores(storage, prefix, facts),
        copy=options.copy,
        overwrite=options.replace,
    )
    return {"prefix": prefix, **_granted(granted), **made}


def _checkpoint(storage: Storage, out: Storage, options: Options) -> dict[str, Any]:
    prefix = locate_checkpoint(storage, options.checkpoint)
    config = read_config(storage, prefix)
    context = config["context"]
    ids = {context["dataset"]: [i for c in context["clips"] for i in c]}
    granted = _grant(f"The weights of '{prefix}'", ids, options)
    out.check()
    made = publish_checkpoint(
        storage,
        prefix,
        granted,
        out,
        options.about(f"{config['generator']} trained on {context['dataset']}"),
        scores=_read_scores(storage, prefix, {config["generator"]}),
        overwrite=options.replace,
    )
    return {"prefix": prefix, **_granted(granted), **made}


def _grant(what: str, ids: Mapping[str, Iterable[str]], options: Options) -> Grant:
    known: dict[str, DatasetInfo] = {}
    own = []
    for name, clips in ids.items():
        if info := known_source(name, clips):
            known[info.name] = info
        else:
            own.append(name)
    return grant(what, list(known.values()), own, options.license, options.i_have_the_right)


def _granted(granted: Grant) -> dict[str, Any]:
    return {
        "license": granted.licence,
        "sources": [{"name": i.name, "terms": i.terms, "licence": i.licence} for i in granted.sources],
        "own": list(granted.own),
        "right": granted.right,
    }


def _ids(facts: Facts, makings: Iterable[Making]) -> dict[str, set[str]]:
    """Real clips that are in a set, or that its synthetic clips derive from, by the dataset that they come from."""
    out = {name: set(clips) for name, clips in facts.ids.items()}
    for m in makings:
        context = (m.config or {}).get("context", {})
        if context:
            out.setdefault(context["dataset"], set()).update(i for c in context["clips"] for i in c)
    hybrid = facts.header.extra.get("hybrid", {}).get("real", {}).get("dataset", "")
    for name in (facts.header.dataset, hybrid):
        # The header of a set whose rows say otherwise: the strictest of both holds.
        if name in DATASETS:
            out.setdefault(name, set())
    return out


def _title(facts: Facts) -> str:
    title = str(facts.header.extra.get("title") or facts.header.dataset)
    if not facts.num_synthetic:
        return title
    made = " and ".join(g for g in facts.generators if g) or "a generator"
    return (
        f"{title}, with clips by {made}"
        if facts.num_real
        else f"Clips like those of {facts.header.dataset}, by {made}"
    )


def _checkpoints(facts: Facts) -> list[tuple[str, str]]:
    """(prefix, digest) of what made a set."""
    request = facts.manifest.request
    origin = facts.header.extra.get("hybrid", {}).get("synthetic", {})
    both = [(r.get("checkpoint"), r.get("checkpoint_digest")) for r in (request or {}, origin)]
    return [(str(p), str(d)) for p, d in both if p and d]


def _scores(storage: Storage, prefix: str, facts: Facts) -> list[dict[str, Any]]:
    """Score files that speak of a set: of its run, or of any run on a composed dataset."""
    if not facts.num_synthetic:
        return []
    if "hybrid" in facts.header.extra:
        name = facts.header.dataset
        runs = sorted({o.key.split("/")[1] for o in storage.list("runs") if f"/{name}/score-" in o.key})
        return [s for run in runs for s in _read_scores(storage, f"runs/{run}/{name}", {"hybrid"})]
    found = _read_scores(storage, prefix, set(facts.generators))
    request = facts.manifest.request or {}
    return found or _read_scores(storage, str(request.get("checkpoint", "")), set(facts.generators))


def _read_scores(storage: Storage, prefix: str, generators: set[str]) -> list[dict[str, Any]]:
    """Whole tables (not parts of one) below runs/RUN/DATASET in which a generator has an arm."""
    parts = prefix.split("/")
    if parts[0] != "runs" or len(parts) < 3:
        return []
    base = "/".join(parts[:3])
    out = []
    for o in storage.list(base):
        name = o.key.removeprefix(f"{base}/")
        if re.fullmatch(r"score-[^/]+\.json", name) and not name.endswith("-part.json"):
            score = json.loads(storage.read(o.key))
            if any(a["arm"].split(":")[-1] in generators for a in score["arms"]):
                out.append(score)
    return out


def report(result: Mapping[str, Any]) -> None:
    """The result for people."""
    print(
        f"{result['prefix']}: {result['files']} files, {result['bytes'] / 1e6:.1f} MB, under {result['out']}"
        f" ({result['license'] or 'no licence'})"
    )
    for source in result["sources"]:
        print(f"  {source['name']}: {source['terms']}")
    if result["right"]:
        print(f'  the card quotes you: "{result["right"]}"')
    for name, clips in result.get("configs", {}).items():
        print(f"  configuration {name}: {', '.join(f'{n:,} {side}' for side, n in clips.items())}")
    if "carried_clips" in result:
        print(f"  its tensors hold {result['carried_clips']:,} real clips")
    if result.get("croissant_checked") is False:
        print("  croissant.json was not validated: pip install 'motionsynth[publish]'")


if __name__ == "__main__":
    cli.main(Options, verb)
