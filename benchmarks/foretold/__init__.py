"""How well simulations foretell: studies measured in several layouts, and simulated from one."""
