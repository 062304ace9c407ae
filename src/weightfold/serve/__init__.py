"""One net of many domains behind HTTP, with requests of all clients batched together."""
