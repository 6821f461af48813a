"""What an embedder hands on beside a vector where a tuned head needs it: what goes into its model's last layers."""

import numpy as np
from numpy.typing import NDArray

States = NDArray[np.float16]
"""(tokens, dimensions), of a text's first MOST_TOKENS."""

DEPTH = 3  # layers that it goes into
MOST_TOKENS = 64  # what stands further back the layers below have told them
