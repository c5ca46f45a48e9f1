"""The portraits of an audit: the same seed without and with the adapter, for both texts, a few at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from spf_lite.audit.prompts import Prompt
from spf_lite.data.encoding import model_buckets
from spf_lite.models.backbone import Backbone
from spf_lite.models.running.at_a_time import at_a_time
from spf_lite.models.running.sampling import sample

#: Small portraits that are sampled at a time.
MOST_AT_A_TIME = 16


@dataclass(frozen=True)
class Portraits:
    """Portraits of N prompts, each of one seed.

    Attributes:
        base: N, without the adapter, for the base texts.
        at_base: N, with the adapter, for the base texts.
        at_complete: N, with the adapter, for the complete texts; empty if there are none.
        by_words: N, without the adapter, for the complete texts; empty if there are none.
    """

    base: list[Image.Image]
    at_base: list[Image.Image]
    at_complete: list[Image.Image]
    by_words: list[Image.Image]


@dataclass(frozen=True)
class Sampler:
    """How an audit samples.

    Attributes:
        backbone: the model, with its adapter loaded.
        steps: denoising steps of each portrait.
        guidance_scale: of classifier-free guidance; None: the model's own.
    """

    backbone: Backbone
    steps: int = 25
    guidance_scale: float | None = None

    @property
    def at_a_time(self) -> int:
        """How many portraits are sampled at a time, few of a large model and many of a small one."""
        return at_a_time(model_buckets(self.backbone)[0], MOST_AT_A_TIME)

    def before(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """Portraits without the adapter."""
        with self.backbone.reference():
            return self.after(texts, seeds)

    def after(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """Portraits with the adapter as it is loaded."""
        return sample(
            self.backbone,
            texts,
            seeds=seeds,
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            batch_size=self.at_a_time,
        )

    def portraits(
        self,
        prompts: Sequence[Prompt],
        seeds: Sequence[int],
        base: list[Image.Image] | None = None,
        by_words: list[Image.Image] | None = None,
    ) -> Portraits:
        """The portraits of some prompts.

        Args:
            prompts: N.
            seeds: N.
            base: portraits without the adapter for the base texts, if they are known.
            by_words: those for the complete texts, if they are known.
        """
        texts = [prompt.base_text for prompt in prompts]
        complete = [prompt.complete_text for prompt in prompts if prompt.complete_text is not None]
        if base is None:
            base = self.before(texts, seeds)
        if by_words is None:
            by_words = self.before(complete, seeds) if complete else []
        return Portraits(base, self.after(texts, seeds), self.after(complete, seeds) if complete else [], by_words)
