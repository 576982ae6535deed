"""The command line of ``python -m training predict``; cheap to import."""

from __future__ import annotations

import argparse
from pathlib import Path

SAVED = ("hamiltonian", "density", "orbital_energies")


def add_executor(parser: argparse.ArgumentParser) -> None:
    """Options of commands whose work falls into pieces: which part, and on what."""
    parser.add_argument("--part", default="1/1", metavar="I/N", help="only part I of N, for tasks of a batch system")
    parser.add_argument(
        "--merge", action="store_true", help="compute nothing; make one file of what all parts have made"
    )
    parser.add_argument(
        "--executor", choices=["processes", "parsl"], default="processes", help="worker processes here, or Parsl"
    )
    parser.add_argument(
        "--parsl-config",
        type=Path,
        default=None,
        help="Python file that defines config (deploy/parsl); else this machine",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be said to it."""
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder")
    parser.add_argument("structures", type=Path, nargs="+", help="files, folders of files, or ASE data bases (.db)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the results; again: goes on")
    parser.add_argument(
        "--save",
        nargs="+",
        choices=SAVED,
        default=["hamiltonian", "orbital_energies"],
        help="what is kept of molecules; of crystals it is H(R)",
    )
    parser.add_argument("--double", action="store_true", help="matrices in float64 instead of float32")
    parser.add_argument("--chunk", type=int, default=256, help="structures in a file of results (%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="workers of one thread; 0 works in this process")
    parser.add_argument("--device", default="cpu", help="of the networks; every worker has its own")
    parser.add_argument(
        "--batch-blocks", type=int, default=1000, help="atoms and pairs in a forward pass (%(default)s)"
    )
    parser.add_argument("--max-orbitals", type=int, default=1000, help="larger structures are failures (%(default)s)")
    parser.add_argument("--molecules", action="store_true", help="cells are boxes around molecules, and left out")
    add_executor(parser)


def run(options: argparse.Namespace) -> int:
    """Predict, or merge; returns 0 if every structure of this job has an answer or a reason."""
    from training.executors import opened
    from training.parts import Part
    from training.predict.run import merge_parts, predict
    from training.predict.work import Job
    from training.tables import ConfigError

    if options.chunk < 1 or options.batch_blocks < 1 or options.processes < 0:
        raise ConfigError("--chunk and --batch-blocks must be 1 or more, --processes 0 or more.")
    job = Job(
        checkpoint=options.checkpoint.resolve(),
        output=options.output.resolve(),
        save=tuple(options.save),
        dtype="float64" if options.double else "float32",
        batch_blocks=options.batch_blocks,
        max_orbitals=options.max_orbitals,
        molecules=options.molecules,
        device=options.device,
    )
    part = Part.read(options.part)
    inputs = [path.resolve() for path in options.structures]
    if options.merge:
        done = merge_parts(job, inputs, chunk=options.chunk)
    else:
        with opened(options.executor, options.processes, options.parsl_config) as executor:
            done = predict(job, inputs, chunk=options.chunk, part=part, executor=executor)
    print(f"{job.output}: part {part}, {done.chunks} chunks, {done.predicted} predicted in this call")
    if done.answered is not None:
        print(
            f"{done.answered} structures have an answer, {done.failed} have not; index.csv and failures.jsonl say which"
        )
    if done.merged is not None:
        print(done.merged)
    return 0
