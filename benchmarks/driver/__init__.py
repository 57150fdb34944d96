"""How much the driver costs: hundreds of workers, tens of thousands of tasks that only sleep."""
