"""Evaluate models on a data set: ``python eval.py --config C --model M --styles sketch,text``."""

from freestyle.cli import evaluate

if __name__ == "__main__":
    raise SystemExit(evaluate())
