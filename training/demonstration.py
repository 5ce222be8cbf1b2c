"""``python -m training.demonstration``: trains ten models into one store, one for each label of a data set.

Each model is trained on the images of one label. Models that the store already contains are skipped, so an interrupted
run continues with the next model.
"""

import sys
from pathlib import Path
from typing import Final

from app.command_line import Parser, add_help
from app.inference.bundles.store import ModelStore
from training.__main__ import main as train
from training.cli.parser import one_of

# The rates that the calibration images of one label can guarantee: there are at least 5,400 images of each digit in
# MNIST, but only 174 in scikit-learn's digits.
FALSE_ALARM_RATES: Final = {"mnist": 0.01, "fashion-mnist": 0.01, "digits": 0.05}


def main(arguments: list[str] | None = None) -> int:
    """Trains the missing models; returns 0, or the exit status of the first training that failed."""
    options = _parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    existing = ModelStore(options.store).names()
    for label in range(10):
        name = f"{options.data}-{label}"
        if name in existing:
            print(f"{name} already exists")
            continue
        training_options = {
            "--data": options.data,
            "--normal": label,
            "--name": name,
            "--store": options.store,
            "--data-dir": options.data_dir,
            "--false-alarm-rate": FALSE_ALARM_RATES[options.data],
            **({} if options.epochs is None else {"--epochs": options.epochs}),
        }
        status = train([str(word) for pair in training_options.items() for word in pair])
        if status:
            return status
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m training.demonstration",
        usage="%(prog)s [--data SET] [options]",
        description="Trains ten models into one store, one for each label of a data set.",
    )
    group = parser.add_argument_group("options")
    group.add_argument("--data", type=one_of("data set", FALSE_ALARM_RATES), default="mnist", metavar="SET",
                       help=", ".join(FALSE_ALARM_RATES))  # fmt: skip
    group.add_argument("--data-dir", type=Path, default=Path("data"), metavar="FOLDER", help="folder for data sets")
    group.add_argument(
        "--store", type=Path, default=Path("demo_store"), metavar="FOLDER", help="folder of the model store"
    )
    group.add_argument("--epochs", metavar="N", help="passes over the images (default: the recipe's)")
    add_help(group)
    return parser


if __name__ == "__main__":
    sys.exit(main())
