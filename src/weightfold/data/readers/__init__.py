"""One file a kind of data set; `weightfold.data.registry` finds them."""
