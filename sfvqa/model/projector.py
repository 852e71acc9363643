"""From the vision tower's width to the decoder's."""

from torch import Tensor, nn


class Projector(nn.Module):
    """The reference's `mlp2x_gelu`: Linear, exact (erf) GELU, Linear, on the last dimension."""

    def __init__(self, vision_dim: int, decoder_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision_dim, decoder_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(decoder_dim, decoder_dim)

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.fc2(self.act(self.fc1(features)))
        return output
