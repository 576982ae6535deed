"""A selection: known molecules -> pool -> expected errors -> a file of SMILES for a recipe.

Expected errors are kept in a file beside the result, so a selection that was stopped goes on, and another ``--count`` costs
nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model.checkpoint.card import read_card
from model.checkpoint.expectation import read_expectation
from model.checkpoint.store import CARD
from model.errors import CheckpointError
from model.structure import SYMBOLS
from training.atomic import write_text
from training.evaluate.finished import Finished
from training.generate.geometry import GeometryError, parse_smiles
from training.generate.plan import formula_of, lines_of, make_plan, split_of
from training.generate.recipe import Recipe, SplitConfig
from training.pool import parallel_map
from training.selection.choose import Rules, choose
from training.selection.expected import Candidate, Judged, judge
from training.selection.neighbours import neighbours
from training.tables import ConfigError

TRAIN: Final = "train"


@dataclass(frozen=True)
class Pool:
    """Where candidates come from.

    Attributes:
        files: of SMILES, as a recipe's ``[smiles] files``.
        neighbours: how many to make of the known training molecules.
        changes: by how many changes.
        max_heavy: heavy atoms of a candidate, at most.
        held_out: formulas that must not be trained on, beside those of the known molecules.
        seed: of everything that is drawn.
    """

    files: tuple[Path, ...] = ()
    neighbours: int = 0
    changes: int = 1
    max_heavy: int = 9
    held_out: frozenset[str] = frozenset()
    seed: int = 0


@dataclass(frozen=True)
class Selected:
    """What a selection has found.

    Attributes:
        chosen: to be labelled, largest expected error first.
        judged: candidates with an expected error.
        left_out: reasons, and how many candidates had each.
    """

    chosen: tuple[Judged, ...]
    judged: int
    left_out: Counter[str]


def select(
    checkpoint: Path, known: Sequence[Recipe], pool: Pool, rules: Rules, output: Path, *, processes: int
) -> Selected:
    """Judge a pool, choose, and write ``output`` with a line "SMILES train" each.

    Args:
        checkpoint: folder that judges; it needs expectation.json.
        known: recipes of what is labelled already; their held-out formulas stay held out.
        pool: candidates.
        rules: what is chosen of them.
        output: file to write; what was judged is kept beside it.
        processes: workers of one thread each; 0 works in this process.

    Raises:
        ConfigError: no pool.
        CheckpointError: it is of crystals, or its errors were never measured.
    """
    card = read_card(checkpoint / CARD)
    if card.periodic or read_expectation(checkpoint, card.weights_sha256) is None:
        raise CheckpointError(
            f"{checkpoint} does not say what error to expect of its guesses, so nothing can be chosen by it.",
            hint="Take a checkpoint of molecules with expectation.json; benchmarks/expectation.py fits one.",
        )
    candidates, left_out = _candidates(known, pool, [SYMBOLS[z] for z in card.elements])
    if not candidates:
        raise ConfigError(
            "no molecule to judge: give --pool FILES, or --neighbours N with --known RECIPES, and see what was left out: "
            + (", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "nothing")
        )
    done = Finished(output.with_suffix(".judged.jsonl"), {"weights": card.weights_sha256, "seed": pool.seed})
    pending = [Candidate(smiles, checkpoint, pool.seed) for smiles in candidates if done.get(smiles) is None]
    for one in parallel_map(judge, pending, total=len(pending), processes=processes, title="judge"):
        done.put(one.smiles, {"error": str(one.error), "reason": one.reason})
    everything = [
        Judged(smiles, float(done.values[smiles]["error"]), done.values[smiles]["reason"]) for smiles in candidates
    ]
    judged = [one for one in everything if not one.reason]
    left_out["without a geometry or a prediction"] += len(everything) - len(judged)
    chosen = choose(judged, rules)
    head = f"# chosen of {len(judged)} by {card.name} {card.version}, the largest expected error first\n"
    write_text(output, head + "".join(f"{one.smiles} {TRAIN}\n" for one in chosen))
    return Selected(tuple(chosen), len(judged), +left_out)


def _candidates(known: Sequence[Recipe], pool: Pool, elements: Sequence[str]) -> tuple[list[str], Counter[str]]:
    """Canonical SMILES that may be trained on, and why others may not."""
    labelled = [molecule for recipe in known for molecule in make_plan(recipe)[0]]
    splits = {molecule.formula: molecule.split for molecule in labelled}
    names = {molecule.smiles for molecule in labelled}
    seeds = sorted({molecule.smiles for molecule in labelled if molecule.split == TRAIN and molecule.smiles})
    given = [line.split()[0] for file in pool.files for _, line in lines_of(file) if line.split()]
    made = neighbours(
        seeds,
        elements=elements,
        changes=pool.changes,
        max_heavy=pool.max_heavy,
        count=pool.neighbours,
        seed=pool.seed,
    )
    division = known[0].split if known else SplitConfig()
    found: dict[str, None] = {}
    left_out: Counter[str] = Counter()
    for smiles in [*given, *made]:
        reason = ""
        try:
            parsed = parse_smiles(smiles)
        except GeometryError as error:
            left_out[str(error)] += 1
            continue
        formula = formula_of(parsed.numbers)
        split = splits.get(formula) or split_of(parsed.numbers, division)
        if parsed.canonical in names:
            reason = "labelled already"
        elif formula in pool.held_out or split != TRAIN:
            reason = "of a held-out formula"
        elif int((parsed.numbers > 1).sum()) > pool.max_heavy:
            reason = "too large"
        elif parsed.charge or not {SYMBOLS[z] for z in parsed.numbers} <= set(elements):
            reason = "charged, or of other elements than the checkpoint's"
        if reason:
            left_out[reason] += 1
        else:
            found[parsed.canonical] = None
    return list(found), left_out
