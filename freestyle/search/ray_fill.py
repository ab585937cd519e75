"""``freestyle index --engine ray``: photos are decoded and embedded on a Ray cluster.

Ray Data sends parts of the work to actors, each with an encoder of its own; records come back to
this process, the only one that writes to the index. The photos, and the model if there is one, must
lie at the same paths on all machines. ``RAY_ADDRESS`` names the cluster; without it one is started
on this machine.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freestyle.errors import UserError
from freestyle.search.decode import Broken, Job
from freestyle.search.fill import Outcome, Pace, Work, embed_batches

if TYPE_CHECKING:
    from freestyle.search.photo_encoder import EncoderChoice, PhotoEncoder

BATCHES = 4  # passes of the encoder in one part
RETRIES = 1  # of a part whose actor died


class RayEngine:
    """Embeds work on a cluster; see ``run`` of :func:`freestyle.search.fill.fill`.

    Args:
        choice: What embeds, rebuilt by every actor.
        workers: Actors; one per CPU, or per GPU, of the cluster where None.

    Raises:
        UserError: If Ray Data is not installed.
    """

    def __init__(self, choice: EncoderChoice, workers: int | None = None) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UserError("--engine ray needs Ray Data: pip install 'ray[data]', or use local")
        if os.path.isdir(choice.model):
            choice = replace(choice, model=str(Path(choice.model).absolute()))
        self.choice = choice
        self.workers = workers

    def __call__(self, work: Work, encoder: PhotoEncoder, pace: Pace) -> Iterator[Outcome]:
        """Outcomes of all photos, part by part as they are finished.

        Raises:
            UserError: What an actor could not be built for.
        """
        if not work:
            return
        import ray

        if not ray.is_initialized():
            ray.init(log_to_driver=False, configure_logging=False)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # what a dead actor loses is named below
        gpu = encoder.model.device.type == "cuda"
        size = pace.batch_size * BATCHES
        parts = [work[start : start + size] for start in range(0, len(work), size)]
        rows = [{"part": pickle.dumps(part)} for part in parts]  # read back by our own actors only
        settings = (self.choice, encoder.thumbnail, pace.batch_size)
        count = self.workers or int(ray.cluster_resources().get("GPU" if gpu else "CPU", 1))
        left = {photo.id: photo for photo, _ in work}
        try:
            made = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                _Embedder,
                fn_constructor_args=(settings,),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=max(1, min(count, len(parts)))),
                num_cpus=1,
                num_gpus=1 if gpu else 0,
                ray_remote_args_fn=_retries,
            )
            for row in made.iter_rows():
                for photo, what in pickle.loads(row["outcomes"]):
                    left.pop(photo.id, None)
                    yield photo, what
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, UserError):
                raise cause from error
            raise
        for photo in left.values():
            reason = f"{photo.origin} was lost with the Ray actor that had it: index it locally"
            yield photo, Broken(reason, unread=True)


def _retries() -> dict[str, int]:
    return {"max_task_retries": RETRIES}


class _Embedder:
    """An actor: parts in, outcomes out."""

    def __init__(self, settings: tuple[Any, ...]) -> None:
        choice, thumbnail, self.batch_size = settings
        self.encoder = choice.build()
        self.encoder.thumbnail = thumbnail
        self.decoder = self.encoder.decoder()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        results = np.empty(len(batch["part"]), dtype=object)
        for at, part in enumerate(batch["part"]):
            work: Work = pickle.loads(part)
            decoded = ((photo, self.decoder(Job.of(photo, known))) for photo, known in work)
            outcomes = list(embed_batches(decoded, self.encoder, self.batch_size))
            results[at] = pickle.dumps(outcomes)
        return {"outcomes": results}
