"""From settings to a style reader and an empty style space of the right shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from freestyle.config import StyleConfig

if TYPE_CHECKING:
    from torch import Tensor

    from freestyle.style.reader import StyleReader
    from freestyle.style.space import StyleSpace


def build_reader(config: StyleConfig) -> StyleReader:
    """The frozen network and its Gram reading, as the settings say."""
    from freestyle.style.features import FrozenFeatures
    from freestyle.style.reader import StyleReader

    features = FrozenFeatures(config.network, config.taps, config.resolution, config.weights)
    return StyleReader(
        features, channels=config.channels, power=config.power, normalise=config.normalise
    )


def empty_space(config: StyleConfig, reader: StyleReader) -> StyleSpace:
    """An unfitted space, to be filled by :func:`fit_space` or from a saved model."""
    from freestyle.style.space import StyleSpace

    components = config.n_components
    return StyleSpace(
        reader.code_dim,
        config.n_bases,
        None if components is None else min(components, reader.code_dim),
        config.temperature,
        center=config.center,
        seed=config.seed,
        reader_tag=reader.tag,
    )


def fit_space(config: StyleConfig, codes: Tensor, reader_tag: str) -> StyleSpace:
    """Fit the bases on style codes ``(N, code_dim)`` of all training queries, unlabelled."""
    from freestyle.style.space import StyleSpace

    return StyleSpace.fit(
        codes,
        n_bases=config.n_bases,
        seed=config.seed,
        n_components=config.n_components,
        temperature=config.temperature,
        center=config.center,
        reader_tag=reader_tag,
    )
