"""DO-Conv: a convolution's kernel times a depthwise factor over its taps (Cao et al. 2020)."""
