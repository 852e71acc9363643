"""Which frames an answer looked at, from where its slow attention went: a hint where to look, no proof.

What counts are the positions that wrote the answer, each one a token: the last of the prompt and every new token but
the last. Where writing does not look, because choices are compared or slow attention ends with the prompt, all
positions of the question count, and those of the choice. `python -m sfvqa.training.evidence` measures how often it
is the moment asked for: with `tiny` in nine of ten written answers about a flash and more, and in four of ten where
choices are compared, since a question's positions look around before anything is said.
"""

from torch import Tensor

from sfvqa.inference.answer import FrameEvidence
from sfvqa.inference.encoding import EncodedVideo
from sfvqa.inference.prompting import BuiltPrompt
from sfvqa.model import IMAGE_TOKEN_ID

NOTHING_LOOKED_AT = "There is no evidence: the model's gates let none of what it sees in single frames through."


def weigh_frames(encoded: EncodedVideo, weights: Tensor) -> tuple[FrameEvidence, ...]:
    """What went to each slow token `[S]`, added up by frame, as shares of 1; nothing where nothing went anywhere."""
    total = float(weights.double().sum())
    if not total > 0:
        return ()
    of_frames = weights.double().view(len(encoded.indices), -1).sum(dim=1) / total
    return tuple(map(FrameEvidence, encoded.timestamps_seconds, encoded.indices, of_frames.tolist()))


def num_question_tokens(prompt: BuiltPrompt) -> int:
    """How many tokens a prompt has behind the video and its subtitles: question, template, and the turn's end."""
    behind_video = prompt.token_ids[::-1].index(IMAGE_TOKEN_ID)
    return behind_video - (prompt.subtitles.tokens if prompt.subtitles else 0)
