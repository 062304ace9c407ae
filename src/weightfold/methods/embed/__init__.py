"""A convolution as the matrix that it is: `chart`, and `verb`, which is `wf.embed`."""
