"""``python -m training.demonstration``: a store with a model per digit, to see what many models look like.

Each of the ten has only ever seen one digit. What is in the store already is left as it is: a run that was stopped
goes on where it was, and the next one has nothing to do.
"""

import sys
from pathlib import Path
from typing import Final

from app.inference.bundles.store import ModelStore
from training.__main__ import main as train
from training.cli.parser import Parser, add_help, one_of

# The least share of false alarms that a tenth of the set can guarantee well: MNIST has 5,400 images of a digit or
# more, scikit-learn's digits 174.
FALSE_ALARM_RATES: Final = {"mnist": 0.01, "fashion-mnist": 0.01, "digits": 0.05}


def main(arguments: list[str] | None = None) -> int:
    """Trains the models that are not there yet; returns the exit status of the first that failed, or 0."""
    options = _parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    there = ModelStore(options.store).names()
    for label in range(10):
        name = f"{options.data}-{label}"
        if name in there:
            print(f"{name} is there already")
            continue
        words = {
            "--data": options.data,
            "--normal": label,
            "--name": name,
            "--store": options.store,
            "--data-dir": options.data_dir,
            "--false-alarm-rate": FALSE_ALARM_RATES[options.data],
            **({} if options.epochs is None else {"--epochs": options.epochs}),
        }
        status = train([str(word) for pair in words.items() for word in pair])
        if status:
            return status
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m training.demonstration",
        usage="%(prog)s [--data SET] [options]",
        description="Trains a model for each of ten labels, into a store of its own.",
    )
    group = parser.add_argument_group("options")
    group.add_argument("--data", type=one_of("set", FALSE_ALARM_RATES), default="mnist", metavar="SET",
                       help=", ".join(FALSE_ALARM_RATES))  # fmt: skip
    group.add_argument("--data-dir", type=Path, default=Path("data"), metavar="FOLDER", help="where sets are kept")
    group.add_argument("--store", type=Path, default=Path("demo_store"), metavar="FOLDER", help="where the models go")
    group.add_argument("--epochs", metavar="N", help="passes over the images (default: the recipe's)")
    add_help(group)
    return parser


if __name__ == "__main__":
    sys.exit(main())
