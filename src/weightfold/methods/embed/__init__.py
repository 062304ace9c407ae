"""A convolution as the matrix that it is: `chart`."""
