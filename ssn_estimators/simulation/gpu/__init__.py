"""The engine on GPUs: fused kernels, or library products where circuits are large."""
