"""How much of a grid's training successive halving needs, on grids whose full answer is known."""
