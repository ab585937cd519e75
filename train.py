"""Train prompt tokens: ``python train.py fit --config configs/emoji_mini_freestyle.yaml``."""

from freestyle.cli import train

if __name__ == "__main__":
    raise SystemExit(train())
