"""How smooth the loss is along the steps of training, and how the layers' gradients shift."""
