"""The sizes of a slow-fast network, and how many parameters each part of it has: arithmetic, without the network."""

from dataclasses import dataclass

from sfvqa.errors import ModelError

# The names of enums of sfvqa.model, written out because importing those would import torch; a test compares.
SLOW_ATTENTION_SCOPES = ("text", "text_after_video", "all")
GATINGS = ("dynamic_warm_up", "warm_up", "dynamic", "none")
DYNAMIC_GATINGS = ("dynamic_warm_up", "dynamic")

_NOT_POSITIVE = (
    "hybrid_layers",
    "tie_word_embeddings",
    "slow_attention_scope",
    "gating",
    "has_qkv_biases",
    "has_output_bias",
    "has_query_key_norms",
)


@dataclass(frozen=True)
class Architecture:
    """What a checkpoint's config.json says of its shape (ARCHITECTURE: paper, section 3).

    `vision_depths` and `vision_dims` are the ConvNeXt stages' blocks and widths; `image_size` pixels are seen a side.
    `hybrid_layers` are the indices of decoder layers that also attend to slow tokens. `slow_attention_scope` and
    `gating` name members of the enums of sfvqa.model. `head_dim` is the width of one attention head, 0 for an even
    share of `hidden_size`; biases and norms of queries, keys and values are what decoder families differ in: the
    defaults are Qwen2's. Raises ModelError when the numbers contradict each other.

    >>> tiny = Architecture(
    ...     image_size=64, vision_depths=(2, 2), vision_dims=(32, 96), video_pooling_stride=2, hidden_size=128,
    ...     intermediate_size=384, num_layers=4, num_attention_heads=4, num_key_value_heads=2, vocab_size=768,
    ...     max_position_embeddings=2048, rope_theta=10_000.0, tie_word_embeddings=True, hybrid_layers=(0, 2),
    ... )
    >>> tiny.num_visual_tokens(32), tiny.num_visual_tokens(1), tiny.head_dim
    (512, 64, 32)
    """

    image_size: int
    vision_depths: tuple[int, ...]
    vision_dims: tuple[int, ...]
    video_pooling_stride: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    max_position_embeddings: int
    rope_theta: float
    tie_word_embeddings: bool
    hybrid_layers: tuple[int, ...]
    slow_attention_scope: str = "text"
    gating: str = "dynamic_warm_up"
    head_dim: int = 0
    has_qkv_biases: bool = True
    has_output_bias: bool = False
    has_query_key_norms: bool = False

    def __post_init__(self) -> None:
        if self.head_dim == 0:
            self._check_divides(self.hidden_size, self.num_attention_heads)
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)
        for name, value in vars(self).items():
            numbers = value if isinstance(value, tuple) else (value,)
            if name not in _NOT_POSITIVE and any(number <= 0 for number in numbers):
                raise _contradiction(f"{name} {value} is not above 0")
        if self.slow_attention_scope not in SLOW_ATTENTION_SCOPES or self.gating not in GATINGS:
            raise _contradiction(
                f"slow_attention_scope {self.slow_attention_scope!r} or gating {self.gating!r} does not exist; "
                f"there are {', '.join(SLOW_ATTENTION_SCOPES)} and {', '.join(GATINGS)}"
            )
        if len(self.vision_depths) != len(self.vision_dims) or not self.vision_depths:
            raise _contradiction(f"vision_depths {self.vision_depths} and vision_dims {self.vision_dims} do not pair")
        if self.image_size % self.vision_stride:
            raise _contradiction(f"image_size {self.image_size} is no multiple of {self.vision_stride}")
        if self.grid_side(num_frames=2) < 1:
            raise _contradiction(f"video_pooling_stride {self.video_pooling_stride} leaves no token of a frame")
        self._check_divides(self.num_attention_heads, self.num_key_value_heads)
        if any(not 0 <= layer < self.num_layers for layer in self.hybrid_layers):
            raise _contradiction(f"hybrid_layers {self.hybrid_layers} lie outside {self.num_layers} layers")

    def _check_divides(self, whole: int, parts: int) -> None:
        if parts <= 0 or whole % parts:
            raise _contradiction(
                f"{self.num_attention_heads} heads with {self.num_key_value_heads} KV heads do not divide "
                f"a width of {self.hidden_size}"
            )

    @property
    def vision_stride(self) -> int:
        """Pixels a cell of the feature map covers in each direction."""
        return int(4 * 2 ** (len(self.vision_dims) - 1))

    def grid_side(self, num_frames: int) -> int:
        """Visual tokens of a frame in each direction; those of an only frame are not pooled (reference)."""
        return self.image_size // self.vision_stride // (self.video_pooling_stride if num_frames > 1 else 1)

    def num_visual_tokens(self, num_frames: int) -> int:
        """Of so many frames together: all of them are slow tokens."""
        return num_frames * self.grid_side(num_frames) ** 2

    @property
    def query_size(self) -> int:
        """Width of the queries of one token in one layer, and of what its heads return together."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Width of the keys, or of the values, of one token in one layer."""
        return self.num_key_value_heads * self.head_dim

    @property
    def num_vision_parameters(self) -> int:
        """Of the vision tower, without any classification head."""
        dims = self.vision_dims
        total = 3 * 4 * 4 * dims[0] + dims[0] + 2 * dims[0]  # stem: convolution and norm
        for stage, (depth, dim) in enumerate(zip(self.vision_depths, dims, strict=True)):
            if stage > 0:
                total += 2 * dims[stage - 1] + 4 * dims[stage - 1] * dim + dim  # norm and 2×2 convolution
            depthwise, norm, scale = 49 * dim + dim, 2 * dim, dim
            total += depth * (depthwise + norm + scale + 2 * 4 * dim * dim + 5 * dim)
        return total

    @property
    def num_projector_parameters(self) -> int:
        """Of the two linear layers between vision tower and decoder."""
        return (self.vision_dims[-1] + 1) * self.hidden_size + (self.hidden_size + 1) * self.hidden_size

    @property
    def num_decoder_linear_weights(self) -> int:
        """Weights, biases apart, of the decoder layers' own linear layers: all that is ever quantized."""
        attention = 2 * self.hidden_size * (self.query_size + self.key_value_size)
        return self.num_layers * (attention + 3 * self.hidden_size * self.intermediate_size)

    @property
    def num_slow_attention_parameters(self) -> int:
        """Of the hybrid layers' projections and gates."""
        kv_proj = (self.hidden_size + 1) * 2 * self.key_value_size
        gate_proj = self.query_size + 1 if self.gating in DYNAMIC_GATINGS else 0
        return len(self.hybrid_layers) * (kv_proj + gate_proj + 1)

    @property
    def num_decoder_other_parameters(self) -> int:
        """Of embeddings, lm_head (when it is not the embeddings), norms, and the biases of queries, keys, values."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        biases = self.has_qkv_biases * (self.query_size + 2 * self.key_value_size)
        biases += self.has_output_bias * self.hidden_size
        norms = 2 * self.hidden_size + self.has_query_key_norms * 2 * self.head_dim
        return embeddings + self.hidden_size + self.num_layers * (norms + biases)

    @property
    def num_parameters(self) -> int:
        """Of the whole network."""
        return (
            self.num_vision_parameters
            + self.num_projector_parameters
            + self.num_decoder_linear_weights
            + self.num_slow_attention_parameters
            + self.num_decoder_other_parameters
        )


def _contradiction(what: str) -> ModelError:
    return ModelError(f"An architecture contradicts itself: {what}.", "Correct the numbers.")
