"""MLX's Python package with mlx.core replaced by calls of the JavaScript library. Everything else comes from an MLX checkout (MLX_PYTHON: its folder "python")."""
import os

__path__.append(os.path.join(os.environ["MLX_PYTHON"], "mlx"))
