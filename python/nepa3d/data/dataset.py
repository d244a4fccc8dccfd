"""``nepa3d.samples.dataset`` under the name that the track document uses."""

from nepa3d.samples.dataset import SampleSettings, evaluation_sample, sample_of_answers, training_sample

__all__ = ["SampleSettings", "evaluation_sample", "sample_of_answers", "training_sample"]
